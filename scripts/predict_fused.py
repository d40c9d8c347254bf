"""Rule predict_fused: prediction and the contours' chosen weight in; the fused probability out."""

from voxloom import contour_fusion, fusion_weight, io
from voxloom.logs import log_to
from voxloom.volume import PROBABILITY

with log_to(snakemake.log[0]):
    prediction = io.open_volume(snakemake.input.prediction)
    weight = fusion_weight.read_weight(snakemake.input.curve)
    key = io.resume_key(snakemake.input, marker_below=snakemake.params.marker_below, code=snakemake.params.code)
    with io.create_volume(
        snakemake.output.prediction,
        shape=prediction.shape,
        dtype="uint8",
        geometry=prediction.geometry,
        kind="probability",
        quantisation=PROBABILITY,
        resume=key,
    ) as out:
        contour_fusion.fuse_volume(
            prediction,
            out,
            weight=weight,
            marker_below=snakemake.params.marker_below,
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
        )
        out.metadata["fusion"] = {"weight": weight, "marker_below": snakemake.params.marker_below}
