"""The manifest of a run: what it says of files and jobs, that others read it, and what verifying finds."""

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from voxloom import io, manifest
from voxloom.cli import main
from voxloom.convert import convert_file
from voxloom.errors import FormatError
from voxloom.finished_jobs import finished_jobs
from voxloom.io.checksums import tree_sha256
from voxloom.io.nrrd import write_nrrd
from voxloom.logs import log_to
from voxloom.volume import Geometry

RAW = "raw/brain.nrrd"


def note(folder, output, *, rule, inputs, log):
    """What Snakemake keeps of a job, under the name of one of its outputs."""
    record = {"rule": rule, "input": inputs, "log": [log], "starttime": 1.0e9, "endtime": 1.0e9 + 3.5}
    name = base64.urlsafe_b64encode(output.encode()).decode()
    pieces = [name[at : at + 254] for at in range(0, len(name), 254)]
    path = folder.joinpath(".snakemake", "metadata", *(f"@{piece}" for piece in pieces[:-1]), pieces[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A volume converted from a file elsewhere, a table made of it, and what was kept of the two jobs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    whole, values = (slice(0, 2), slice(0, 3), slice(0, 4)), np.ones((2, 3, 4), "uint8")
    write_nrrd(RAW, [(whole, values)], shape=values.shape, dtype=values.dtype, geometry=Geometry((1.0, 1.0, 1.0)))
    store = tmp_path / "results" / "volumes" / "brain.zarr"
    convert_file(RAW, store, memory_mib=1000)
    table = tmp_path / "results" / "measurements" / "vessels" / "brain of a long name.csv"
    table.parent.mkdir(parents=True)
    table.write_text("volume\n1\n")
    (tmp_path / "plan.yaml").write_text("epochs: 3\n")
    log = "results/logs/convert/brain.log"
    with log_to(log):
        pass
    note(tmp_path, "results/volumes/brain.zarr", rule="convert", inputs=[RAW], log=log)
    long = f"results/measurements/vessels/{table.name}"
    inputs = ["results/volumes/brain.zarr", "plan.yaml"]
    note(tmp_path, long, rule="measure", inputs=inputs, log="results/logs/measure/vessels/brain.log")
    note(tmp_path, f"results/gone/{'x' * 200}", rule="measure", inputs=[], log="results/logs/measure/gone.log")
    benchmark = tmp_path / "results" / "benchmarks" / "measure" / "vessels" / "brain.tsv"
    benchmark.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\tcpu_time\n3.25\t0:00:03\t87.5\tNA\n")
    return tmp_path


def write(project, **other):
    manifest.write_manifest(
        project / "results",
        jobs=finished_jobs(project),
        configuration={"config": {"volumes": "config/volumes.tsv"}},
        title="a run",
        licence="CC0-1.0",
        seeds={"vessels": 17},
        **other,
    )
    document = json.loads((project / "results" / "ro-crate-metadata.json").read_text())
    return {entity["@id"]: entity for entity in document["@graph"]}


def test_every_file_has_its_checksum_and_a_store_that_of_its_list(project):
    entities = write(project)
    store = entities["volumes/brain.zarr/"]
    assert store["sha256"] == tree_sha256(project / "results" / "volumes" / "brain.zarr")
    table = entities["measurements/vessels/brain%20of%20a%20long%20name.csv"]
    assert (table["contentSize"], table["encodingFormat"]) == ("9", "text/csv")
    assert table["sha256"] == io.sha256(project / "results" / table["name"])
    assert "benchmarks" not in str(entities["./"])


def test_a_job_says_what_it_took_and_made_when_where_and_at_what_cost(project):
    entities = write(project)
    convert, measure = entities["#job/convert/brain"], entities["#job/measure/vessels/brain"]
    assert convert["object"] == [{"@id": "#volume/raw/brain.nrrd"}]
    assert convert["result"] == [{"@id": "volumes/brain.zarr/"}]
    assert "cores" in convert["description"]
    assert (convert["startTime"], convert["endTime"]) == ("2001-09-09T01:46:40+00:00", "2001-09-09T01:46:43+00:00")
    assert [part["@id"] for part in measure["object"]] == ["volumes/brain.zarr/", "#file/plan.yaml", "#seed/vessels"]
    assert entities["#job/measure/vessels/brain/max_rss"]["value"] == "87.5"
    assert [part["@id"].rsplit("/")[-1] for part in measure["resourceUsage"]] == ["s", "max_rss"]
    assert not [name for name in entities if "gone" in name]


def test_raw_data_are_known_by_the_checksum_of_their_conversion(project):
    entities = write(project)
    assert entities["#volume/raw/brain.nrrd"]["sha256"] == io.sha256(project / RAW)


def test_another_reader_of_ro_crates_finds_the_same(project):
    rocrate = pytest.importorskip("rocrate.rocrate", reason="a second reader: pip install rocrate")
    entities = write(project)
    crate = rocrate.ROCrate(project / "results")
    assert crate.name == "a run"
    assert {entity.id for entity in crate.data_entities} == {part["@id"] for part in entities["./"]["hasPart"]}
    action = crate.get("#job/measure/vessels/brain")
    assert action["instrument"]["name"] == "voxloom, rule measure"
    assert action["result"][0]["sha256"] == io.sha256(next((project / "results").rglob("*.csv")))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_profile_s_own_validator_has_nothing_to_say(project, monkeypatch):
    services = pytest.importorskip("rocrate_validator.services", reason="opt-in: make test-sharing")
    models = pytest.importorskip("rocrate_validator.models")
    rocrate = pytest.importorskip("rocrate")
    terms = json.loads((Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_text())
    place = "rdflib.plugins.shared.jsonld.context.Context._fetch_context"
    monkeypatch.setattr(place, lambda *words: terms)  # the context from a file, not from the network
    write(project)
    settings = services.ValidationSettings(
        rocrate_uri=str(project / "results"),
        profile_identifier="process-run-crate-0.5",
        requirement_severity=models.Severity.REQUIRED,
    )
    said = [issue.message for issue in services.validate(settings).get_issues()]
    assert not [message for message in said if "/ro/crate/1.1/context" not in message]  # it looks for that itself


def test_results_as_they_were_are_verified_from_either_folder(project, capsys):
    write(project)
    assert main(["verify", str(project)]) == 0
    assert main(["verify", str(project / "results")]) == 0
    assert capsys.readouterr().out.count("all 4 files are as the manifest says") == 2


def test_every_file_that_is_not_as_it_was_is_named(project, capsys):
    write(project)
    results = project / "results"
    shard = next(path for path in (results / "volumes").rglob("c/0/0/0"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    next(results.rglob("*.csv")).unlink()
    (results / "volumes" / "other.csv").touch()
    (results / "volumes" / "other\udcff.csv").touch()
    (project / "plan.yaml").unlink()
    assert main(["verify", str(project)]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        "missing  measurements/vessels/brain of a long name.csv",
        "differs  volumes/brain.zarr/0/c/0/0/0",
        "surplus  volumes/other.csv",
        "surplus  volumes/other\\udcff.csv",
        "input is not here: plan.yaml",
    ]
    assert "4 of 6 files are not as the manifest" in said.err


def test_raw_data_are_compared_where_they_are(project, capsys):
    write(project)
    (project / "plan.yaml").write_text("epochs: 4\n")
    (project / RAW).write_bytes((project / RAW).read_bytes() + b"#")
    assert main(["verify", str(project)]) == 1
    assert capsys.readouterr().out.splitlines() == [f"input differs: {RAW}", "input differs: plan.yaml"]
    (project / RAW).write_bytes(b"no volume any more")
    assert main(["verify", str(project), "--json"]) == 1
    assert [found["what"] for found in json.loads(capsys.readouterr().out)["inputs"]] == ["differs", "differs"]


def test_a_manifest_of_unchanged_files_is_written_without_reading_them(project, monkeypatch):
    write(project)
    first = (project / "results" / "manifest" / "checksums.sha256").read_text()
    monkeypatch.setattr("voxloom.io.checksums.sha256", lambda path: pytest.fail(f"{path} was read again"))
    write(project)
    assert (project / "results" / "manifest" / "checksums.sha256").read_text() == first


def test_a_part_of_a_remote_storage_gets_no_manifest(tmp_path):
    results = tmp_path / ".snakemake" / "storage" / "s3" / "bucket" / "results"
    how = {"jobs": [], "configuration": {}, "title": "", "licence": "", "seeds": {}}
    with pytest.raises(FormatError, match="is a copy of some files of a remote storage"):
        manifest.write_manifest(results, **how)


def test_results_without_a_manifest_say_how_to_get_one(tmp_path, capsys):
    assert main(["verify", str(tmp_path)]) == 1
    assert "has no ro-crate-metadata.json" in capsys.readouterr().err


def test_a_manifest_without_a_checksum_is_refused(project):
    write(project)
    path = project / "results" / "ro-crate-metadata.json"
    path.write_text(path.read_text().replace('"sha256"', '"sha1"'))
    with pytest.raises(FormatError, match="is not a manifest of voxloom"):
        manifest.verify(project)


@pytest.mark.parametrize(
    ("name", "message"),
    [("manifest/checksums.sha256", "has another checksum than"), ("ro-crate-metadata.json", "is not a manifest of")],
)
def test_a_manifest_that_was_edited_is_refused(project, name, message):
    write(project)
    path = project / "results" / name
    path.write_text(path.read_text()[:-40])
    with pytest.raises(FormatError, match=message):
        manifest.verify(project)
