"""Rule evaluate_membranes: predictions and annotations of membranes in; the challenge's scores and error maps out."""

from voxloom import error_maps, io, membranes, split
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    compared = {
        "predictions": io.open_volumes(snakemake.input.predictions),
        "truths": io.open_volumes(snakemake.input.annotations),
        "split": split.read_split(snakemake.input.split),
        "fold": int(snakemake.wildcards.fold),
        "threads": snakemake.threads,
        "memory_mib": snakemake.resources.block_mib,
    }
    sections = membranes.score_sections(**compared)
    scores = membranes.summarise(sections)
    io.save_table(sections, snakemake.output.sections)
    io.save_table(scores, snakemake.output.scores)
    error_maps.write_error_maps(
        snakemake.output.maps,
        io.open_volumes(snakemake.input.volumes),
        **compared,
        threshold=membranes.best_threshold(scores, part="validation"),
    )
