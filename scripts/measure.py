"""Rule measure: numbered objects and grey values in, tables out."""

from voxloom import io, measure
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    labels = io.open_volume(snakemake.input.segmentation)
    image = io.open_volume(snakemake.input.volume)
    objects = measure.measure_objects(
        labels,
        objects=labels.metadata["objects"],
        spacing_um=labels.spacing_um,
        image=image,
        threads=snakemake.threads,
        memory_mib=snakemake.resources.block_mib,
    )
    length_um = measure.measure_length_um(
        labels,
        spacing_um=labels.spacing_um,
        threads=snakemake.threads,
        memory_mib=snakemake.resources.block_mib,
    )
    summary = measure.summarise(objects, shape=labels.shape, spacing_um=labels.spacing_um, length_um=length_um)
    io.save_table(objects, snakemake.output.objects)
    io.save_table(summary, snakemake.output.summary)
