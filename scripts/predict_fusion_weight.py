"""Rule predict_fusion_weight: predictions, annotations and split in; the Rand error for every weight out."""

from voxloom import fusion_weight, io, split
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    annotations = io.open_annotations(snakemake.input.annotations)
    curve = fusion_weight.weight_curve(
        io.open_volumes(snakemake.input.predictions),
        next(iter(annotations.values())),
        split.read_split(snakemake.input.split),
        fold=int(snakemake.wildcards.fold),
        marker_below=snakemake.params.marker_below,
        memory_mib=snakemake.resources.block_mib,
        threads=snakemake.threads,
    )
    io.save_table(curve, snakemake.output.curve)
