"""What jobs without a network take: memory by the functions with which their stages choose blocks, disk, and work.

Imported by Snakemake's main process, so it doesn't wait for PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from voxloom.configuration import Configuration
from voxloom.forecast_rates import CELLS_TIMES, JOINED_PER_SECOND, RATES, RUNS_BYTES, stored_bytes
from voxloom.forecast_volumes import Header
from voxloom.job_memory import block_mib


@dataclass(frozen=True)
class Need:
    """What a job's blocks take under a budget.

    Parameters
    ----------
    mib : float
    threads : int
        That can work at a time.
    gpu_mib : float
        On the GPU.
    """

    mib: float
    threads: int = 1
    gpu_mib: float = 0.0


Takes = Callable[[int], Need]
"""From a job's memory in MiB to what it takes; raises a `VolumeError` where it can't work with so little."""


@dataclass(frozen=True)
class Job:
    """A job before it runs.

    Parameters
    ----------
    stage : str
        Its rule.
    name : str
        As under results/benchmarks/<stage>, with ``{fold}`` for the number of the fold and ``{scatteritem}`` for that
        of the part.
    takes : callable or None
        None where it isn't known yet; `waits_for` says for what.
    work : float
        Of one of these jobs, see `forecast_rates.Rate`; of parts their mean.
    written_bytes : float
        On disk, at the end.
    scratch_bytes : float
        On disk, while it runs.
    folds : int
    parts : int
        Jobs that share a volume.
    waits_for : str
        The file that has to be there first.
    """

    stage: str
    name: str
    takes: Takes | None
    work: float = 0.0
    written_bytes: float = 0.0
    scratch_bytes: float = 0.0
    folds: int = 1
    parts: int = 1
    waits_for: str = ""

    @property
    def count(self) -> int:
        """Jobs of this kind: every fold's parts."""
        return self.folds * self.parts

    def names(self) -> Iterator[str]:
        """The names of these jobs."""
        for fold in range(self.folds):
            for part in range(1, self.parts + 1):
                filled = self.name.replace("{fold}", str(fold))
                yield filled.replace("{scatteritem}", f"{part}-of-{self.parts}")


def spoken(name: str) -> str:
    """The name of a job as messages say it.

    Examples
    --------
    >>> spoken("vessels/best/{fold}/a.{scatteritem}")
    'vessels/best/<fold>/a.<part>'
    """
    return name.replace("{fold}", "<fold>").replace("{scatteritem}", "<part>")


def largest(needs: Sequence[Need]) -> Need:
    """Of several passes the one that takes most, and the threads of the narrowest."""
    return Need(max(need.mib for need in needs), min(need.threads for need in needs))


def volume_jobs(configuration: Configuration, volume: str, header: Header) -> Iterator[Job]:
    """The jobs of a volume that need no model.

    Parameters
    ----------
    configuration : Configuration
    volume : str
    header : Header

    Yields
    ------
    job : Job
    """
    yield Job(
        "convert",
        volume,
        lambda memory_mib: convert_need(header, memory_mib),
        work=header.voxels,
        written_bytes=stored_bytes("image", header.voxels, header.dtype.itemsize),
    )
    for task in configuration.tasks:
        codes = header.of_type("uint8")
        stored = stored_bytes("annotation", codes.voxels, 1)
        if "annotation" not in configuration.volumes[volume]:
            yield _annotate_job(configuration, task, volume, header)
        for suffix in _imported(configuration, task, volume):
            yield Job(
                "annotate_import",
                f"{task}/{volume}{suffix}",
                lambda memory_mib, codes=codes: import_need(codes, memory_mib),  # type: ignore[misc]
                work=codes.voxels,
                written_bytes=stored,
            )
        yield Job(
            "distance",
            f"{task}/{volume}",
            lambda memory_mib, task=task: distance_need(configuration, task, header, memory_mib),  # type: ignore[misc]
            work=codes.voxels,
            written_bytes=stored_bytes("distance", codes.voxels, 2),
        )


def _annotate_job(configuration: Configuration, task: str, volume: str, header: Header) -> Job:
    from voxloom.recipe_plan import in_order, nodes_of

    nodes = nodes_of(configuration.tasks[task]["annotate"]["recipe"])
    codes = header.of_type("uint8")
    stored = stored_bytes("annotation", codes.voxels, 1)
    filters = sum(node.is_global for node in in_order(nodes[-1]))
    return Job(
        "annotate",
        f"{task}/{volume}",
        lambda memory_mib: annotate_need(configuration, task, header, memory_mib),
        work=codes.voxels,
        written_bytes=stored,
        scratch_bytes=stored * filters + (RUNS_BYTES * codes.voxels if filters else 0.0),
    )


def _imported(configuration: Configuration, task: str, volume: str) -> list[str]:
    """Suffixes of the annotations of a volume that come from files: of the task's own "", of an annotator's ".anna"."""
    row = configuration.volumes[volume]
    own = [""] if "annotation" in row else []
    return own + [f".{name}" for name in configuration.annotators(task) if f"annotation_{name}" in row]


def split_job(configuration: Configuration, task: str, headers: Sequence[Header]) -> Job:
    """The job that splits a task's volumes."""
    return Job(
        "split",
        task,
        lambda memory_mib: largest([split_need(configuration, header, memory_mib) for header in headers]),
        work=sum(header.of_type("uint8").voxels for header in headers),
    )


def fusion_jobs(configuration: Configuration, task: str, fusion: str, headers: Mapping[str, Header]) -> Iterator[Job]:
    """The jobs that choose how much of the contours a fusion takes, and that fuse every volume.

    Parameters
    ----------
    configuration : Configuration
    task, fusion : str
    headers : mapping of str to Header
        By volume.

    Yields
    ------
    job : Job
    """
    folds, every = len(configuration.folds[task]), list(headers.values())
    yield Job(
        "predict_fusion_weight",
        f"{task}/{fusion}/{{fold}}",
        lambda memory_mib: largest([weight_need(configuration, header, memory_mib) for header in every]),
        work=sum(header.of_type("uint8").voxels for header in every),  # all sections; those that train are most
        folds=folds,
    )
    for volume, header in headers.items():
        voxels = header.of_type("uint8").voxels
        yield Job(
            "predict_fused",
            f"{task}/{fusion}/{{fold}}/{volume}",
            lambda memory_mib, header=header: fusion_need(configuration, header, memory_mib),  # type: ignore[misc]
            work=voxels,
            written_bytes=stored_bytes("prediction", voxels, 1),
            folds=folds,
        )


def evaluate_job(
    configuration: Configuration, task: str, model: str, headers: Sequence[Header], *, network_mib: float = 0.0
) -> Job:
    """The job that scores a model; `network_mib` is what its network takes where that is run once more."""

    def takes(memory_mib: int) -> Need:
        need = largest([evaluate_need(configuration, task, header, memory_mib) for header in headers])
        return Need(need.mib + network_mib, need.threads)

    return Job(
        "evaluate",
        f"{task}/{model}/{{fold}}",
        takes,
        work=sum(header.of_type("uint8").voxels for header in headers),
        folds=len(configuration.folds[task]),
    )


def membrane_jobs(configuration: Configuration, task: str, model: str, headers: Sequence[Header]) -> Iterator[Job]:
    """The job that scores a model's membranes, where its task asks for it."""

    def takes(memory_mib: int) -> Need:
        return largest([membranes_need(configuration, header, memory_mib) for header in headers])

    if configuration.tasks[task]["evaluate"]["membranes"]:
        yield Job(
            "evaluate_membranes",
            f"{task}/{model}/{{fold}}",
            takes,
            work=sum(header.of_type("uint8").voxels for header in headers),
            folds=len(configuration.folds[task]),
        )


def object_jobs(configuration: Configuration, task: str, model: str, volume: str, header: Header) -> Iterator[Job]:
    """The jobs that number and measure a model's objects."""
    voxels, folds = header.of_type("uint8").voxels, len(configuration.folds[task])
    stored, parts = stored_bytes("segmentation", voxels, 4), configuration.config["resources"]["scatter"]
    slower = CELLS_TIMES if configuration.tasks[task]["segment"]["objects"] == "cells" else 1.0
    segment = Job(
        "segment",
        f"{task}/{model}/{{fold}}/{volume}",
        lambda memory_mib: segment_need(configuration, task, header, memory_mib),
        work=voxels * slower,
        written_bytes=stored,
        folds=folds,
    )
    if parts > 1:
        shared = replace(segment, name=f"{segment.name}.{{scatteritem}}", work=segment.work / parts, parts=parts)
        yield replace(shared, stage="segment_look", written_bytes=0.0)
        yield replace(shared, stage="segment_part", written_bytes=stored / parts)
        segment = replace(segment, work=voxels * RATES["segment"].per_second / JOINED_PER_SECOND, written_bytes=0.0)
    elif configuration.tasks[task]["segment"]["objects"] != "cells":
        segment = replace(segment, scratch_bytes=RUNS_BYTES * voxels)
    yield segment
    yield Job(
        "measure",
        f"{task}/{model}/{{fold}}/{volume}",
        lambda memory_mib: measure_need(configuration, header, memory_mib),
        work=voxels,
        folds=folds,
    )


def convert_need(header: Header, memory_mib: int) -> Need:
    """What converting takes, the interpreter and its libraries included."""
    from voxloom import convert

    return Need(convert.peak_mib(header, memory_mib=memory_mib))


def annotate_need(configuration: Configuration, task: str, header: Header, memory_mib: int) -> Need:
    """What the recipe's passes take."""
    from voxloom import recipe
    from voxloom.recipe_plan import Run, layouts, nodes_of

    resources, codes = configuration.config["resources"], header.of_type("uint8")
    nodes = nodes_of(configuration.tasks[task]["annotate"]["recipe"])
    run = Run(header.of_type(header.dtype), header.spacing_um, block_mib(memory_mib), resources["threads"])
    needs = [Need(layout.mib, layout.threads) for layout in layouts(nodes, run, codes)]
    look = recipe.look_layout(codes, codes.shape, block_mib(memory_mib))
    return Need(max(look.mib, largest(needs).mib), largest(needs).threads)


def import_need(codes: Header, memory_mib: int) -> Need:
    """What reading an annotation file back takes; the file itself is read as many slices at a time as fit."""
    from voxloom.annotate_file import settle_layout

    layout = settle_layout(codes, memory_mib=block_mib(memory_mib))
    return Need(layout.mib, layout.threads)


def distance_need(configuration: Configuration, task: str, header: Header, memory_mib: int) -> Need:
    """What a distance map's blocks take."""
    from voxloom.distance import distance_layout

    codes = header.of_type("uint8")
    layout = distance_layout(
        codes.shape,
        codes,
        spacing_um=header.spacing_um,
        clip_um=configuration.tasks[task]["distance"]["clip_um"],
        memory_mib=block_mib(memory_mib),
        threads=configuration.config["resources"]["threads"],
    )
    return Need(layout.mib, layout.threads)


def split_need(configuration: Configuration, header: Header, memory_mib: int) -> Need:
    """What counting an annotation takes."""
    from voxloom.split import count_layout

    layout = count_layout(header.shape[-3:], memory_mib=block_mib(memory_mib), threads=_threads(configuration))
    return Need(layout.mib, layout.threads)


def evaluate_need(configuration: Configuration, task: str, header: Header, memory_mib: int) -> Need:
    """What scoring takes: the counts, and a block of prediction and truths or a tile of centre lines."""
    from voxloom import evaluate, tally

    truths, shape, blocks = configuration.tasks[task]["evaluate"]["against"], header.shape[-3:], block_mib(memory_mib)
    counts = tally.tallies_mib("uint8", truths=len(truths), parts=len(evaluate.PARTS))
    read = tally.block_layout(shape, "uint8", memory_mib=blocks, threads=_threads(configuration))
    tile = evaluate.tile_layout(shape, memory_mib=blocks)
    return Need(counts + max(read.mib, tile.mib), read.threads)


def weight_need(configuration: Configuration, header: Header, memory_mib: int) -> Need:
    """What choosing a fusion's weight takes."""
    from voxloom.fusion_weight import section_layout

    shape, threads = header.shape[-3:], _threads(configuration)
    layout = section_layout(shape, memory_mib=block_mib(memory_mib), threads=threads)
    return Need(layout.mib, layout.threads)


def fusion_need(configuration: Configuration, header: Header, memory_mib: int) -> Need:
    """What fusing a prediction with contours takes."""
    from voxloom.contour_fusion import fusion_layout

    codes, threads = header.of_type("uint8"), _threads(configuration)
    layout = fusion_layout(codes.shape, codes, memory_mib=block_mib(memory_mib), threads=threads)
    return Need(layout.mib, layout.threads)


def membranes_need(configuration: Configuration, header: Header, memory_mib: int) -> Need:
    """What scoring membranes section by section takes."""
    from voxloom.membranes import section_layout

    layout = section_layout(header.shape[-3:], memory_mib=block_mib(memory_mib), threads=_threads(configuration))
    return Need(layout.mib, layout.threads)


def segment_need(configuration: Configuration, task: str, header: Header, memory_mib: int) -> Need:
    """What cutting a prediction and numbering its objects takes."""
    from voxloom.segmentation import objects_layout

    layout = objects_layout(
        header.shape[-3:],
        header.of_type("uint32"),
        objects=configuration.tasks[task]["segment"]["objects"],
        memory_mib=block_mib(memory_mib),
        threads=_threads(configuration),
    )
    return Need(layout.mib, layout.threads)


def measure_need(configuration: Configuration, header: Header, memory_mib: int) -> Need:
    """What measuring objects and their length takes; the table of objects is not known before."""
    from voxloom.measure import read_layout, tile_layout

    labels, threads, blocks = header.of_type("uint32"), _threads(configuration), block_mib(memory_mib)
    read = read_layout([labels, header.of_type(header.dtype)], memory_mib=blocks, threads=threads)
    tile = tile_layout(labels, memory_mib=blocks, threads=threads)
    return largest([Need(read.mib, read.threads), Need(tile.mib, tile.threads)])


def _threads(configuration: Configuration) -> int:
    return int(configuration.config["resources"]["threads"])
