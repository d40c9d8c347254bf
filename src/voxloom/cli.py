"""The command `voxloom`: look at files, convert, score, begin a configuration, plan a run, verify its results."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from voxloom import __version__
from voxloom.errors import VoxloomError
from voxloom.faults import disk_errors_told

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from voxloom.io.source import Source
    from voxloom.manifest import Verdict

PATHS = """\
A path is a file (NRRD, TIFF, HDF5, MRC, NIfTI), a Zarr store, a folder of single TIFF or PNG slices,
or a pattern of them in quotes ("scan/*.tif"). One array of several: file.h5::/dataset, store.zarr::/array."""

INFO = f"""\
Say what a file holds: format, sizes, type, encoding, voxel size in um, origin, kinds, keys, and whether
`voxloom convert` would refuse it, and why.

{PATHS}"""

INFO_EXAMPLES = """\
examples:
  voxloom info brain.nrrd
  voxloom info brain.nrrd --values          minimum, maximum, sum and checksum of the decoded values: the same
                                            for two encodings of one volume
  voxloom info "scan/*.tif" --axes XYZ      slices that lie along X
  voxloom info labels.h5::/raw --json"""

CONVERT = f"""\
Write a volume in another format, chosen by the suffix of OUT:
.nrrd .seg.nrrd .tif .h5 .zarr .mrc .nii .nii.gz
Voxel size and origin travel along. Memory stays bounded, whatever the volume's size.

{PATHS}"""

CONVERT_EXAMPLES = """\
examples:
  voxloom convert brain.nrrd brain.zarr
  voxloom convert scan/ brain.zarr --voxel-size-um 1.17
  voxloom convert "scan/*.tif" brain.nrrd --axes XYZ --voxel-size-um 2.0 1.17 1.17
  voxloom convert results/segmentations/vessels/best/0/brain.zarr vessels.seg.nrrd"""

SCORE = f"""\
Score a prediction against the truth with every metric that fits the kind of data: a mask (precision, recall, F1, IoU,
Dice, clDice, accuracy beside that of an all-background answer), scores or probabilities (average precision and best F1
as well), instance labels (variation of information, adapted Rand error). In an annotation 255 is "not annotated".

{PATHS}"""

SCORE_EXAMPLES = """\
examples:
  voxloom score prediction.nrrd truth.nrrd
  voxloom score probabilities.zarr truth.seg.nrrd --threshold 128 --json
  voxloom score neurons.h5::/labels truth.h5::/labels --labels"""


PLAN = """\
Say what a run will take before it starts, of every stage on every volume and model: peak memory of a job, disk, and a
rough time; and which jobs can't fit the memory that config.yaml gives a job, with the smallest that would do.

Reads config/config.yaml, the files that it names and the headers of the volumes; converts and writes nothing. Times
come from measured and estimated speeds, those of results/benchmarks where jobs ran here already."""

PLAN_EXAMPLES = """\
examples:
  voxloom plan
  voxloom plan --directory my-project --json
  voxloom plan --memory-mib 16000 --threads 8        as if config.yaml said so"""

VERIFY = """\
Read every file of a run's results again and compare it with the checksum in their manifest, which the rule manifest
writes at the end of a run: results/ro-crate-metadata.json and results/manifest/checksums.sha256. Files that differ, are
missing, or that the manifest doesn't know are named. Raw data are compared where they are found."""

VERIFY_EXAMPLES = """\
examples:
  voxloom verify
  voxloom verify my-project --threads 8
  cd results && sha256sum --check --quiet manifest/checksums.sha256      without voxloom, but for surplus files"""

INIT = f"""\
Look at a folder of volumes and their labels, and write the configuration of a first run, with reasons:
config/volumes.tsv, config/tasks/TASK.yaml and config/config.yaml. Nothing is overwritten.

A label file has its image's name and _labels, _mask, _seg or the like behind it (brain.nrrd with brain_labels.nrrd
or brain.seg.nrrd), or lies in a folder of such a name (images/1.tif with labels/1.tif).

{PATHS}"""

INIT_EXAMPLES = """\
examples:
  voxloom init scans/ --task vessels
  voxloom init scans/ --task membranes --voxel-size-um 0.05 0.004 0.004"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words of the command line, those of the process by default.

    Returns
    -------
    status : int
        0; 1 for a refused file, with the reason on standard error. Wrong usage exits with 2.
    """
    parsed = _parser().parse_args(arguments)
    logger = logging.getLogger("voxloom")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("voxloom: %(message)s"))
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with disk_errors_told():
            parsed.run(parsed)
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, `head` say, has seen enough
        sys.stdout = None
    except (VoxloomError, OSError) as error:
        said = [str(error), *getattr(error, "__notes__", [])]
        print(f"voxloom: error: {'; '.join(said)}".replace("\n", " "), file=sys.stderr)
        return 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="voxloom",
        description="What people do with volumes outside a workflow run. `voxloom COMMAND --help` has examples.",
        epilog="exit status: 0, 1 for a refused file (the reason is on standard error), 2 for wrong usage",
    )
    parser.add_argument("--version", action="version", version=f"voxloom {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    info = _command(commands, "info", "say what a file holds, and what would be refused", INFO, INFO_EXAMPLES)
    info.add_argument("file", metavar="FILE")
    info.add_argument("--values", action="store_true", help="read all values: minimum, maximum, sum, SHA-256")
    info.set_defaults(run=_info)

    convert = _command(commands, "convert", "write a volume in another format", CONVERT, CONVERT_EXAMPLES, json=False)
    convert.add_argument("input", metavar="IN")
    convert.add_argument("output", metavar="OUT", help="replaced where it is there")
    convert.add_argument(
        "--voxel-size-um",
        nargs="+",
        type=float,
        action=_VoxelSize,
        metavar="UM",
        help="voxel edges Z Y X in micrometres, or one number for all; wins over the file's own",
    )
    convert.add_argument(
        "--unit",
        choices=("m", "mm", "um", "nm"),
        default="mm",
        help="unit of a voxel size that the file states without one (default: mm, as ITK and 3D Slicer read it)",
    )
    convert.add_argument(
        "--kind",
        choices=("image", "annotation", "mask", "labels", "distance", "probability"),
        help="what the volume is, for a Zarr store (default: as the input says, else image)",
    )
    convert.add_argument(
        "--decode",
        action="store_true",
        help="of a quantised Zarr store write the values, as float32, instead of the stored integers",
    )
    convert.add_argument("--slices", type=int, metavar="N", help="refuse a file that hasn't exactly N slices (Z)")
    convert.add_argument(
        "--memory-mib", type=_finite, default=1024, metavar="MIB", help="memory that may be used (default: %(default)s)"
    )
    convert.set_defaults(run=_convert)

    init = _command(commands, "init", "write the configuration of a first run", INIT, INIT_EXAMPLES, plain=True)
    init.add_argument("folder", metavar="FOLDER")
    init.add_argument("--task", default="mytask", metavar="NAME", help="what is to be found (default: %(default)s)")
    init.add_argument("--into", default=".", metavar="FOLDER", help="where config/ is written (default: here)")
    init.add_argument(
        "--voxel-size-um",
        nargs="+",
        type=float,
        action=_VoxelSize,
        metavar="UM",
        help="voxel edges Z Y X in micrometres, or one number for all, where the files state none",
    )
    init.set_defaults(run=_init)

    plan = _command(commands, "plan", "say what a run will take before it starts", PLAN, PLAN_EXAMPLES, plain=True)
    plan.add_argument(
        "--directory", default=".", metavar="FOLDER", help="where config/ and results/ are (default: here)"
    )
    plan.add_argument("--config", default="config/config.yaml", metavar="FILE", help="(default: %(default)s)")
    plan.add_argument("--memory-mib", type=int, metavar="MIB", help="instead of resources.memory_mib")
    plan.add_argument("--threads", type=int, metavar="N", help="instead of resources.threads")
    plan.add_argument("--json", action="store_true", help="for programs")
    plan.set_defaults(run=_plan)

    verify = _command(commands, "verify", "compare results with their manifest", VERIFY, VERIFY_EXAMPLES, plain=True)
    verify.add_argument("folder", metavar="FOLDER", nargs="?", default=".", help="results, or where they are")
    verify.add_argument("--threads", type=_positive, default=2, metavar="N", help="read so many files at a time (2)")
    verify.add_argument("--json", action="store_true", help="for programs")
    verify.set_defaults(run=_verify)

    score = _command(commands, "score", "score a prediction against the truth", SCORE, SCORE_EXAMPLES)
    score.add_argument("prediction", metavar="PREDICTION")
    score.add_argument("truth", metavar="TRUTH")
    score.add_argument(
        "--threshold",
        type=_finite,
        metavar="VALUE",
        help="scores from here on are foreground, in the file's own numbers (default: half of the range)",
    )
    score.add_argument("--labels", action="store_true", help="both files hold instance labels")
    score.set_defaults(run=_score)
    return parser


def _command(
    commands: Any, name: str, brief: str, description: str, examples: str, *, json: bool = True, plain: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=brief,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if plain:
        return parser
    parser.add_argument(
        "--axes", help="letters of the file's axes, slowest first, where they aren't ZYX (XYZ: slices lie along X)"
    )
    if json:
        parser.add_argument("--json", action="store_true", help="for programs")
    return parser


class _VoxelSize(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        sizes = values * 3 if len(values) == 1 else values
        if len(sizes) != 3 or not all(0 < size < float("inf") for size in sizes):
            given = " ".join(map(str, values))
            parser.error(f"--voxel-size-um takes one positive number, or three: Z Y X; got {given}")
        setattr(namespace, self.dest, tuple(sizes))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"expected a finite number, got {text}")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return value


def _info(arguments: argparse.Namespace) -> None:
    from voxloom.io.formats import open_source

    source = open_source(arguments.file, axes=arguments.axes)
    described = describe(source)
    if arguments.values:
        described["values"] = summarise(source)
    if arguments.json:
        print(json.dumps(described, indent=1, default=str))
    else:
        _print_described(described)


def describe(source: Source) -> dict[str, Any]:
    """What a file holds, as JSON can hold it.

    Parameters
    ----------
    source : Source

    Returns
    -------
    described : dict
        "refusal" is None, or why `voxloom convert` would refuse the file.
    """
    from voxloom.convert import with_voxel_size

    refusal = source.refusal
    if refusal is None:
        try:
            with_voxel_size(source)
        except VoxloomError as error:
            refusal = str(error)
    geometry = source.geometry
    return {
        "path": str(source.path),
        "format": source.format,
        "shape": source.shape and list(source.shape),
        "axes": source.shape and "CZYX"[-len(source.shape) :],
        "dtype": source.dtype.name,
        "spacing_um": geometry and list(geometry.spacing_um),
        "unit_stated": source.unit_stated,
        "origin_um": geometry and list(geometry.origin_um),
        "directions": geometry and [list(row) for row in geometry.directions],
        "space": geometry and geometry.space,
        "facts": source.facts,
        "segments": [vars(segment) for segment in source.segments],
        "header": source.header,
        "warnings": list(source.warnings),
        "refusal": refusal,
    }


def summarise(source: Source) -> dict[str, Any]:
    """Minimum, maximum, sum and checksum of a file's values, in one pass and bounded memory.

    Parameters
    ----------
    source : Source

    Returns
    -------
    summary : dict
        "count", "min", "max", "sum" and "sha256", the latter of the values in file order, little-endian. Integers
        are added exactly. What is not a finite number is left out of the first and counted as "nonfinite".
    """
    import hashlib

    import numpy as np

    digest = hashlib.sha256()
    summary: dict[str, Any] = {"count": 0, "min": None, "max": None, "sum": 0}
    nonfinite = 0
    for values in source.read_values():
        digest.update(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).data)
        summary["count"] += values.size
        numbers = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        nonfinite += values.size - numbers.size
        if numbers.size:
            low, high = numbers.min().item(), numbers.max().item()
            summary["min"] = low if summary["min"] is None else min(low, summary["min"])
            summary["max"] = high if summary["max"] is None else max(high, summary["max"])
            summary["sum"] += _total(numbers)
    if nonfinite:
        summary["nonfinite"] = nonfinite
    return summary | {"sha256": digest.hexdigest()}


def _total(values: NDArray[Any]) -> Any:
    import numpy as np

    if values.dtype.kind == "f":
        return float(values.sum(dtype=np.float64))
    if values.dtype.itemsize < 8:
        return int(values.sum(dtype=np.int64))
    # in two halves of 32 bits, so that no sum overflows
    return (int((values >> 32).sum(dtype=np.int64)) << 32) + int((values & 0xFFFFFFFF).sum(dtype=np.uint64))


def _print_described(described: dict[str, Any]) -> None:
    def row(name: str, value: Any) -> None:
        print(f"{name:<14} {value}")

    row("file", described["path"])
    row("format", described["format"])
    if described["shape"]:
        row("shape", f"{_by(described['shape'])} ({', '.join(described['axes'])})")
    row("dtype", described["dtype"])
    if described["spacing_um"]:
        unit = "um" if described["unit_stated"] else "um, if its numbers are mm: no unit is stated"
        row("voxel size", f"{_by(described['spacing_um'])} {unit} (Z, Y, X)")
        row("origin", f"{', '.join(f'{value:.6g}' for value in described['origin_um'])} um (Z, Y, X)")
        row("space", described["space"] or "not stated")
        if described["directions"] != [[1, 0, 0], [0, 1, 0], [0, 0, 1]]:
            for axis, direction in zip("ZYX", described["directions"], strict=True):
                row(f"direction {axis}", f"{', '.join(f'{value:.6g}' for value in direction)} (Z, Y, X)")
    else:
        row("voxel size", "not stated")
    for name, value in described["facts"].items():
        row(name, _short(value))
    for segment in described["segments"]:
        row("segment", f"{segment['name']}: layer {segment['layer']}, value {segment['label_value']}")
    for name, value in _flat(described["header"]):
        row("key", f"{name} = {_short(value)}")
    for warning in described["warnings"]:
        row("note", warning)
    for name, value in described.get("values", {}).items():
        row(name, value)
    row("convert", f"would be refused: {described['refusal']}" if described["refusal"] else "yes")


def _by(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.6g}" if isinstance(number, float) else str(number) for number in numbers)


def _short(value: Any, *, length: int = 100) -> str:
    text = " ".join(str(item) for item in value) if isinstance(value, list) else str(value)
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 4]} ..."


def _flat(header: dict[str, Any]) -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in header.items():
        pairs += [(key, kept) for key, kept in value.items()] if isinstance(value, dict) else [(name, value)]
    return [(name, value) for name, value in pairs if value not in ([], "")]


def _convert(arguments: argparse.Namespace) -> None:
    from voxloom.convert import convert_file

    convert_file(
        arguments.input,
        arguments.output,
        axes=arguments.axes,
        decode=arguments.decode,
        memory_mib=arguments.memory_mib,
        voxel_size_um=arguments.voxel_size_um,
        slices=arguments.slices,
        unit_when_unstated=arguments.unit,
        kind=arguments.kind,
    )


def _init(arguments: argparse.Namespace) -> None:
    from voxloom import starter

    written = starter.write_configuration(
        arguments.folder, task=arguments.task, into=arguments.into, voxel_size_um=arguments.voxel_size_um
    )
    for path in written:
        print(f"wrote {path}")
    directory = "" if arguments.into == "." else f" --directory {arguments.into}"
    print("look through them, then run:")
    print(f"  snakemake --snakefile {starter.snakefile()}{directory} --cores all")
    print("the result is results/report/index.html")


def _plan(arguments: argparse.Namespace) -> None:
    from voxloom import configuration, forecast, forecast_page

    with contextlib.chdir(arguments.directory):
        given = configuration.read(
            arguments.config,
            resources={"memory_mib": arguments.memory_mib, "threads": arguments.threads},
        )
        found = forecast_page.with_own_rates(given)
        document = forecast_page.document(given, found)
    print(json.dumps(document, indent=1) if arguments.json else forecast_page.text(document))
    forecast.refuse(found, memory_mib=given.config["resources"]["memory_mib"])


def _verify(arguments: argparse.Namespace) -> None:
    from voxloom import manifest
    from voxloom.errors import FormatError

    verdict = manifest.verify(arguments.folder, threads=arguments.threads)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(verdict), indent=1))
    else:
        _print_verdict(verdict)
    if verdict.wrong:
        count = len(verdict.wrong)
        raise FormatError(f"{count} of {verdict.checked} files are not as the manifest of {arguments.folder} says")


def _print_verdict(verdict: Verdict) -> None:
    for found in verdict.differences:
        print(f"{found.what:<8} {found.name.encode(errors='backslashreplace').decode()}")
    for found in verdict.inputs:
        print(f"input {'is not here' if found.what == 'missing' else found.what}: {found.name}")
    if not verdict.wrong:
        print(f"all {verdict.checked} files are as the manifest says")


def _score(arguments: argparse.Namespace) -> None:
    from voxloom.errors import VolumeError
    from voxloom.io.formats import open_source, read_array
    from voxloom.score import score_arrays

    prediction = open_source(arguments.prediction, axes=arguments.axes)
    truth = open_source(arguments.truth, axes=arguments.axes)
    if prediction.require_shape() != truth.require_shape():
        raise VolumeError(
            f"{prediction.path} has shape {prediction.shape}, {truth.path} {truth.shape}; both must be the same voxels"
        )
    geometry = truth.geometry or prediction.geometry
    _warn_of_spacing(prediction, truth)
    try:
        scores = score_arrays(
            read_array(prediction),
            read_array(truth),
            spacing_um=geometry.spacing_um if geometry else None,
            kind="labels" if arguments.labels else "auto",
            threshold=arguments.threshold,
        )
    except VolumeError as error:
        error.add_note(f"while scoring {prediction.path} against {truth.path}")
        raise
    if arguments.json:
        print(json.dumps({"prediction": str(prediction.path), "truth": str(truth.path), **scores}, indent=1))
        return
    width = max(len(name) for name in scores)
    for name, value in scores.items():
        print(f"{name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")


def _warn_of_spacing(prediction: Source, truth: Source) -> None:
    if prediction.geometry is None or truth.geometry is None:
        return
    sizes = prediction.geometry.spacing_um, truth.geometry.spacing_um
    if any(abs(a / b - 1) > 0.01 for a, b in zip(*sizes, strict=True)):
        logging.getLogger("voxloom").warning(
            "voxel sizes differ: %s um in %s, %s um in %s; voxels are compared one by one all the same",
            _by(sizes[0]),
            prediction.path,
            _by(sizes[1]),
            truth.path,
        )


if __name__ == "__main__":
    sys.exit(main())
