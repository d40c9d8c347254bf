"""Rule annotate: volume and recipe in, annotation and its figure out."""

from pathlib import Path

from voxloom import annotate_figure, io, recipe
from voxloom.figures import save_figure
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    volume = io.open_volume(snakemake.input.volume)
    key = io.resume_key(snakemake.input, recipe=snakemake.params.recipe, code=snakemake.params.code)
    with io.create_volume(
        snakemake.output.annotation,
        shape=volume.shape,
        dtype="uint8",
        geometry=volume.geometry,
        kind="annotation",
        resume=key,
    ) as out:
        annotated = recipe.annotate_volume(
            volume,
            out,
            snakemake.params.recipe,
            spacing_um=volume.spacing_um,
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
            scratch_directory=out.folder,
        )
    figure = annotate_figure.annotation_figure(annotated, spacing_um=volume.spacing_um)
    save_figure(figure, Path(snakemake.output.figure_svg).with_suffix(""))
