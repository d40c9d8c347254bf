"""Rule annotate_import: an annotation file in, an annotation in the volume's grid out."""

from voxloom import io
from voxloom.annotate_file import import_annotation
from voxloom.io.formats import open_source
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    volume = io.open_volume(snakemake.input.volume)
    source = open_source(snakemake.params.path, axes=snakemake.params.axes)
    with io.create_volume(
        snakemake.output.annotation, shape=volume.shape, dtype="uint8", geometry=volume.geometry, kind="annotation"
    ) as out:
        import_annotation(
            source,
            out,
            geometry=volume.geometry,
            memory_mib=snakemake.resources.block_mib,
            **snakemake.params.file,
        )
