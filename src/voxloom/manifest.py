"""The manifest of a run: what made the results, and a checksum of every file; written, and compared with them."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from voxloom import convert, crate, provenance
from voxloom.errors import FormatError, VoxloomError
from voxloom.finished_jobs import Job
from voxloom.io import checksums
from voxloom.io.checksums import Checksum, Difference, Known
from voxloom.io.files import atomic_file, sha256
from voxloom.io.formats import open_source
from voxloom.io.store import open_volume
from voxloom.logs import progress

CHECKSUMS = "manifest/checksums.sha256"
CONFIGURATION = "manifest/configuration.yaml"
PARTS = (CHECKSUMS, CONFIGURATION)
KNOWN = "manifest/.known"
ELSEWHERE = ("#volume/", "#file/")
"""How the identities begin of what was read from outside of the results; see `voxloom.crate.source_entity`."""

NOT_RESULTS = ("logs", "benchmarks", crate.FILE, "manifest")
"""What no checksum is kept of: what is told of the jobs, and the manifest itself."""


def write_manifest(
    results: str | Path,
    *,
    jobs: list[Job],
    configuration: Mapping[str, Any],
    title: str,
    licence: str,
    seeds: Mapping[str, int],
    threads: int = 1,
) -> None:
    """Write the manifest of a folder of results: its list of checksums, its configuration, its RO-Crate.

    Parameters
    ----------
    results : str or Path
    jobs : list of Job
        Those that made the results; see `voxloom.finished_jobs.finished_jobs`.
    configuration : mapping
        All of it, with defaults.
    title, licence, seeds
        See `voxloom.crate.crate`.
    threads : int
        Files that are read at a time. Files that have the size and time of the last manifest aren't read again.

    Raises
    ------
    FormatError
        If the results lie in remote storage, of which a job has only what it asked for.
    """
    results = Path(results)
    if ".snakemake" in results.parts:
        raise FormatError(
            f"{results} is a copy of some files of a remote storage, so a manifest would leave the others out; ask for "
            "results/report/index.html instead of everything, or keep the results on a disk and copy the folder"
        )
    with atomic_file(results / CONFIGURATION) as temporary:
        temporary.write_text(yaml.safe_dump(dict(configuration), sort_keys=True, allow_unicode=True))
    names = checksums.files_below(results, leave_out=NOT_RESULTS)
    with Known.kept_in(results / KNOWN) as known:
        listed = checksums.checksums(results, progress(names, description="checksums"), threads=threads, known=known)
        data = list(crate.data_entities(results, checksums.write_list(results / CHECKSUMS, listed)))
    own = [crate.file_entity(results, Checksum(n, sha256(results / n))) for n in PARTS]
    sources = _sources(results)
    document = crate.crate(
        title=title,
        licence=licence,
        data=[*own, *data],
        sources=sources,
        files=_files_elsewhere(jobs, sources),
        jobs=jobs,
        seeds=seeds,
        versions={**provenance.versions(), **_engine()},
        commit=provenance.git_commit(),
    )
    with atomic_file(results / crate.FILE) as temporary:
        temporary.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")


def _engine() -> dict[str, str]:
    """Version of Snakemake, where the job's environment has it; one that conda makes doesn't."""
    try:
        return {"snakemake": importlib.metadata.version("snakemake")}
    except importlib.metadata.PackageNotFoundError:
        return {}


def _sources(results: Path) -> dict[str, crate.Entity]:
    """Raw files from outside of the results, by the store that was made of them; checksums are the stores' own."""
    found = {}
    for store in sorted([*results.glob("volumes/*.zarr"), *results.glob("annotations*/*/*.zarr")]):
        source = open_volume(store).metadata.get("source")
        if source and not source["path"].startswith("results/"):
            path = f"results/{store.relative_to(results).as_posix()}"
            found[path] = crate.source_entity(
                source["path"], sha256=source["sha256"], size=source["bytes"], what="volume"
            )
    return found


def _files_elsewhere(jobs: list[Job], sources: Mapping[str, crate.Entity]) -> list[crate.Entity]:
    """What jobs read from outside of the results and kept no checksum of: plans, weights to begin with."""
    paths = {
        path
        for job in jobs
        for path in job.inputs
        if not path.startswith("results/") and not any(output in sources for output in job.outputs)
    }
    digests = {path: _digest(Path(path)) for path in sorted(paths)}
    return [crate.source_entity(path, sha256=digest) for path, digest in digests.items() if digest]


def _digest(path: Path) -> str | None:
    if path.is_dir():
        return checksums.tree_sha256(path)
    return sha256(path) if path.is_file() else None


@dataclass(frozen=True)
class Verdict:
    """What comparing with a manifest found.

    Parameters
    ----------
    checked : int
        Results that were compared.
    differences : list of Difference
        Results that are not as the manifest says.
    inputs : list of Difference
        The same of what was read from elsewhere; "missing" is not wrong: raw data may lie in an archive.
    """

    checked: int
    differences: list[Difference]
    inputs: list[Difference]

    @property
    def wrong(self) -> list[Difference]:
        """What is other than the manifest says: all but inputs that aren't there."""
        return [*self.differences, *(found for found in self.inputs if found.what != "missing")]


def verify(folder: str | Path, *, threads: int = 1) -> Verdict:
    """Compare a folder with its manifest: every file is read again.

    Parameters
    ----------
    folder : str or Path
        Of results, or in which Snakemake ran.
    threads : int
        Files that are read at a time.

    Returns
    -------
    verdict : Verdict

    Raises
    ------
    FormatError
        If there is no manifest, or its own parts don't belong together.
    """
    results = _results(Path(folder))
    document = _read_crate(results / crate.FILE)
    _check_parts(results, document)
    listed = checksums.read_list(results / CHECKSUMS)
    names = checksums.files_below(results, leave_out=NOT_RESULTS)
    compared = progress(checksums.compare(results, listed, names, threads=threads), description="files compared")
    count, differences = 0, []
    for difference in compared:
        count += 1
        if difference is not None:
            differences.append(difference)
    return Verdict(count, differences, list(_compare_inputs(results.resolve().parent, document)))


def _results(folder: Path) -> Path:
    for place in (folder, folder / "results"):
        if (place / crate.FILE).is_file():
            return place
    raise FormatError(
        f"{folder} has no {crate.FILE}, nor has {folder / 'results'}; name a folder of results, or run snakemake there "
        "to its end: the rule manifest writes one"
    )


def _read_crate(path: Path) -> dict[str, crate.Entity]:
    try:
        entities = {entity["@id"]: entity for entity in json.loads(path.read_text(encoding="utf-8"))["@graph"]}
        told = [entity for name, entity in entities.items() if name in PARTS or name.startswith(ELSEWHERE)]
        is_complete = entities.keys() >= set(PARTS) and all(_is_told(entity) for entity in told)
    except (ValueError, KeyError, TypeError, AttributeError):
        is_complete = False
    if not is_complete:
        raise FormatError(
            f"{path} is not a manifest of voxloom; was it written by another tool, or edited? Have it written again: "
            "snakemake --forcerun manifest"
        )
    return entities


def _is_told(entity: crate.Entity) -> bool:
    """Whether an entity has what comparing needs."""
    return isinstance(entity["name"], str) and isinstance(entity["sha256"], str)


def _check_parts(results: Path, entities: Mapping[str, crate.Entity]) -> None:
    for name in PARTS:
        path = results / name
        if not path.is_file() or sha256(path) != entities[name]["sha256"]:
            what = "has another checksum than" if path.is_file() else "is not there, but stands in"
            raise FormatError(
                f"{path} {what} {results / crate.FILE}; fetch both from one copy, or have them written again: "
                "snakemake --forcerun manifest"
            )


def _compare_inputs(place: Path, entities: Mapping[str, crate.Entity]) -> Iterator[Difference]:
    """What was read from elsewhere, where it can be found from the folder in which Snakemake ran."""
    for identity, entity in entities.items():
        if not identity.startswith(ELSEWHERE):
            continue
        name = entity["name"]
        path = place / name.partition("::")[0]
        found = _volume_digest(place / name) if identity.startswith("#volume/") else _digest(path)
        if found != entity["sha256"]:
            yield Difference("differs" if path.exists() or found else "missing", name)


def _volume_digest(path: Path) -> str | None:
    """Checksum of the files of a volume; None where there are none, or they are no volume any more."""
    try:
        return convert.checksum(open_source(path))
    except VoxloomError:
        return None
