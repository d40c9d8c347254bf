"""Rule split: annotations in; boxes, their map and their audit out."""

from pathlib import Path

from voxloom import audit, io, network_reach, plan_file, split, split_figure
from voxloom.figures import save_figure
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    images = io.open_volumes(snakemake.input.volumes)
    annotations = io.open_volumes(snakemake.input.annotations)
    volumes = [
        split.SplitVolume(name=name, region=region, shape=image.shape, spacing_um=image.spacing_um)
        for (name, image), region in zip(images.items(), snakemake.params.regions, strict=True)
    ]
    planned = plan_file.resolved_models(snakemake.params.planned, snakemake.input.plan)
    reaches = [
        network_reach.native_reach(settings, image.shape[-2:])
        for settings in [*snakemake.params.networks, *planned.values()]
        for image in images.values()
    ]
    given = dict(snakemake.params.split)
    limit = given.pop("duplicate_correlation")
    settings = split.SplitSettings(**given)
    table = split.make_split(
        volumes,
        lambda name, boxes: split.count_blocks(
            annotations[name], boxes, threads=snakemake.threads, memory_mib=snakemake.resources.block_mib
        ),
        settings=settings,
        reach_voxels=reaches,
        seed=snakemake.params.seed,
    )
    gaps = {v.name: split.gap_voxels(v, gap_um=settings.gap_um, reach_voxels=reaches) for v in volumes}
    checks = audit.audited(table, volumes, images, gaps=gaps, duplicate_correlation=limit)
    save_figure(split_figure.split_figure(table, volumes, fold=0), Path(snakemake.output.figure_svg).with_suffix(""))
    io.save_table(checks, snakemake.output.audit)
    io.save_table(table, snakemake.output.split)
