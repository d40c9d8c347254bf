"""A folder of results described as an RO-Crate: JSON-LD that registries and people's tools read.

Follows RO-Crate 1.1 and Process Run Crate 0.5: every job is an action, with the files that it took and made.
"""

from __future__ import annotations

import datetime
import itertools
import mimetypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from voxloom.finished_jobs import Job
from voxloom.io.checksums import Checksum, tree_of

FILE = "ro-crate-metadata.json"
TERMS = "https://w3id.org/ro/terms/workflow-run#"
CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    {name: TERMS + name for name in ("sha256", "resourceUsage")},  # written out, so that nothing else need be fetched
]
SPECIFICATION = "https://w3id.org/ro/crate/1.1"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
SOFTWARE = "#voxloom"
TREE = "sha256 is that of the lines of manifest/checksums.sha256 below this folder, with names from it."
UNITS = {
    "s": ("time", "https://qudt.org/vocab/unit/SEC"),
    "max_rss": ("peak memory", "https://qudt.org/vocab/unit/MebiBYTE"),
    "cpu_time": ("processor time", "https://qudt.org/vocab/unit/SEC"),
}
"""Columns of Snakemake's benchmark tables that are told, with their names and units."""

BENCHMARK = "https://snakemake.readthedocs.io/en/stable/tutorial/additional_features.html#benchmarking"

Entity = dict[str, Any]


def crate(
    *,
    title: str,
    licence: str,
    data: Sequence[Entity],
    sources: Mapping[str, Entity],
    files: Sequence[Entity],
    jobs: Sequence[Job],
    seeds: Mapping[str, int],
    versions: Mapping[str, str],
    commit: str,
) -> dict[str, Any]:
    """The whole document.

    Parameters
    ----------
    title : str
    licence : str
        Under which the results may be used: an address or a name; empty where nobody said so.
    data : sequence of dict
        Files and folders of the results, from `data_entities`.
    sources : mapping of str to dict
        A volume's or an annotation's store to the file that it was made of, where that lies elsewhere; `source_entity`.
    files : sequence of dict
        What else was read from elsewhere.
    jobs : sequence of Job
    seeds : mapping
        By task.
    versions : mapping
        Of voxloom, Python and packages.
    commit : str
        Of the checkout that wrote this.

    Returns
    -------
    document : dict
        As ``ro-crate-metadata.json`` holds it.
    """
    given = [_seed(task, seed) for task, seed in seeds.items()]
    elsewhere = list({entity["@id"]: entity for entity in [*sources.values(), *files]}.values())
    known = _by_path([*data, *elsewhere])
    actions = [entity for job in jobs for entity in _action(job, known, sources, list(seeds))]
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": title,
        "description": f"Results of a run of voxloom {versions['voxloom']}: every file with its checksum, and the job "
        "that made it.",
        "datePublished": _time(datetime.datetime.now(datetime.UTC).timestamp()),
        "license": {"@id": "#licence"},
        "conformsTo": {"@id": PROFILE},
        "hasPart": [{"@id": entity["@id"]} for entity in data],
        "mentions": [{"@id": entity["@id"]} for entity in actions if entity["@type"] == "CreateAction"],
    }
    about = {
        "@id": FILE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": SPECIFICATION},
        "about": {"@id": "./"},
    }
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    graph = [about, root, profile, _licence(licence), *_software(versions, commit), *_rules(jobs, versions["voxloom"])]
    return {"@context": CONTEXT, "@graph": [*graph, *given, *data, *elsewhere, *actions]}


def data_entities(folder: str | Path, listed: Iterable[Checksum]) -> Iterator[Entity]:
    """Files and Zarr stores of a folder.

    Parameters
    ----------
    folder : str or Path
    listed : iterable of Checksum
        Of all files, sorted by name.

    Yields
    ------
    entity : dict
        A store is one, with the checksum of its list; so is every file outside of stores.
    """
    for name, lines in itertools.groupby(listed, key=lambda line: _item_of(line.name)):
        if name.endswith("/"):
            inside = (Checksum(line.name.removeprefix(name), line.sha256) for line in lines)
            yield {
                "@id": quote(name),
                "@type": "Dataset",
                "name": name.rstrip("/"),
                "description": TREE,
                "sha256": tree_of(inside),
            }
        else:
            yield file_entity(folder, next(lines))


def file_entity(folder: str | Path, line: Checksum) -> Entity:
    """A file of a folder.

    Parameters
    ----------
    folder : str or Path
    line : Checksum

    Returns
    -------
    entity : dict
    """
    return {
        "@id": quote(line.name),
        "@type": "File",
        "name": line.name,
        "contentSize": str((Path(folder) / line.name).stat().st_size),
        "encodingFormat": mimetypes.guess_type(line.name)[0] or "application/octet-stream",
        "sha256": line.sha256,
    }


def source_entity(path: str, *, sha256: str, size: int | None = None, what: str = "file") -> Entity:
    """Something that was read from outside of the folder.

    Parameters
    ----------
    path : str
        As the configuration names it.
    sha256 : str
    size : int, optional
        In bytes.
    what : str
        "volume" for what `voxloom.io.formats.open_source` opens, else "file".

    Returns
    -------
    entity : dict
    """
    entity = {
        "@id": f"#{what}/{quote(path)}",
        "@type": "CreativeWork",
        "name": path,
        "description": "Read from outside of this folder.",
        "sha256": sha256,
    }
    return entity if size is None else {**entity, "contentSize": str(size)}


def _item_of(name: str) -> str:
    """The store that a file is part of, with a "/" at its end, or the file itself."""
    parts = PurePosixPath(name).parts
    for number, part in enumerate(parts[:-1], 1):
        if part.endswith(".zarr"):
            return "/".join(parts[:number]) + "/"
    return name


def _action(
    job: Job, known: Mapping[str, list[str]], sources: Mapping[str, Entity], tasks: Sequence[str]
) -> Iterator[Entity]:
    identity = f"#job/{quote(job.name)}"
    usage = [
        {
            "@id": f"{identity}/{column}",
            "@type": "PropertyValue",
            "name": name,
            "propertyID": f"{BENCHMARK}:{column}",
            "unitCode": unit,
            "value": f"{job.measured[column]:g}",
        }
        for column, (name, unit) in UNITS.items()
        if column in job.measured
    ]
    seeds = [f"#seed/{task}" for task in tasks if task in PurePosixPath(job.name).parts[1:2]]
    read = [sources[path]["@id"] for path in job.outputs if path in sources]
    yield {
        "@id": identity,
        "@type": "CreateAction",
        "name": job.name,
        "description": f"Rule {job.rule}" + f", on {job.machine}" * bool(job.machine),
        "startTime": _time(job.started),
        "endTime": _time(job.ended),
        "instrument": {"@id": f"#rule/{job.rule}"},
        "object": [{"@id": name} for name in dict.fromkeys([*read, *_identities(job.inputs, known), *seeds])],
        "result": [{"@id": name} for name in _identities(job.outputs, known)],
        "resourceUsage": [{"@id": entity["@id"]} for entity in usage],
    }
    yield from usage


def _by_path(entities: Iterable[Entity]) -> dict[str, list[str]]:
    """Entities by their path, and by every folder above it."""
    found: dict[str, list[str]] = {}
    for entity in entities:
        path = PurePosixPath(entity["name"])
        for place in (path, *path.parents):
            found.setdefault(str(place), []).append(entity["@id"])
    return found


def _identities(paths: Iterable[str], known: Mapping[str, list[str]]) -> list[str]:
    """Entities that paths stand for: themselves, or what a folder holds."""
    return list(dict.fromkeys(name for path in paths for name in known.get(path.removeprefix("results/"), [])))


def _seed(task: str, seed: int) -> Entity:
    return {"@id": f"#seed/{task}", "@type": "PropertyValue", "name": f"seed of {task}", "value": str(seed)}


def _licence(licence: str) -> Entity:
    said = licence or "Nobody said yet under which licence these results may be used; ask their owners."
    return {"@id": "#licence", "@type": "CreativeWork", "name": licence or "not stated", "description": said}


def _software(versions: Mapping[str, str], commit: str) -> Iterator[Entity]:
    packages = {name: version for name, version in versions.items() if name != "voxloom"}
    yield {
        "@id": SOFTWARE,
        "@type": "SoftwareApplication",
        "name": "voxloom",
        "softwareVersion": versions["voxloom"],
        "identifier": f"git commit {commit}",
        "softwareRequirements": [{"@id": f"#package/{name}"} for name in packages],
    }
    for name, version in packages.items():
        yield {
            "@id": f"#package/{name}",
            "@type": "SoftwareApplication",
            "name": name,
            "softwareVersion": version,
        }


def _rules(jobs: Iterable[Job], version: str) -> Iterator[Entity]:
    for rule in sorted({job.rule for job in jobs}):
        yield {
            "@id": f"#rule/{rule}",
            "@type": "SoftwareApplication",
            "name": f"voxloom, rule {rule}",
            "softwareVersion": version,
            "softwareRequirements": {"@id": SOFTWARE},
        }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
