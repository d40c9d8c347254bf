"""Rule convert: a raw file in, a volume out."""

from voxloom.convert import convert_file
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    volume = snakemake.params.volume
    convert_file(
        volume["path"],
        snakemake.output.volume,
        files=snakemake.input.raw,
        axes=volume["axes"],
        memory_mib=snakemake.resources.mem_mb,
        voxel_size_um=volume.get("voxel_size_um"),
        slices=volume.get("slices"),
        **snakemake.params.convert,
    )
