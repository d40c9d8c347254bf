"""Rule distance: annotation in, clipped distance map out."""

from voxloom import distance, io
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    annotation = io.open_volume(snakemake.input.annotation)
    clip_um = snakemake.params.distance["clip_um"]
    with io.create_volume(
        snakemake.output.distance,
        shape=annotation.shape,
        dtype="uint16",
        geometry=annotation.geometry,
        kind="distance",
        quantisation=distance.distance_quantisation(clip_um),
        resume=io.resume_key(snakemake.input, clip_um=clip_um, code=snakemake.params.code),
    ) as out:
        distance.distance_volume(
            annotation,
            out,
            spacing_um=annotation.spacing_um,
            clip_um=clip_um,
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
        )
