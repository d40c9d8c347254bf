"""Rule annotate_import: an annotation file in, an annotation in the volume's grid out."""

from voxloom import addresses, io, job_memory
from voxloom.annotate_file import import_annotation
from voxloom.convert import source_record
from voxloom.io.formats import open_source
from voxloom.logs import log_to

with log_to(snakemake.log[0]), job_memory.bounded(snakemake.resources.mem_mb, source=snakemake.params.path):
    volume = io.open_volume(snakemake.input.volume)
    path = addresses.local_path(snakemake.params.path, snakemake.input.files)
    source = open_source(path, axes=snakemake.params.axes)
    with io.create_volume(
        snakemake.output.annotation, shape=volume.shape, dtype="uint8", geometry=volume.geometry, kind="annotation"
    ) as out:
        out.metadata["source"] = source_record(source, snakemake.params.path)
        import_annotation(
            source,
            out,
            geometry=volume.geometry,
            memory_mib=snakemake.resources.block_mib,
            **snakemake.params.file,
        )
