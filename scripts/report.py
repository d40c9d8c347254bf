"""Rule report: everything in, one page and its figures out."""

from pathlib import Path

from voxloom import forecast_page, io, provenance, report
from voxloom.logs import log_to
from voxloom.report_inputs import ReportInputs, Run, Task, Volume
from voxloom.report_membrane_scores import Step

with log_to(snakemake.log[0]):
    results = Path(snakemake.output.page).parents[1]
    images = io.open_volumes(snakemake.input.volumes)
    volumes = [
        Volume(name=name, store=image.path, region=snakemake.params.regions[name], is_synthetic=io.is_synthetic(image))
        for name, image in images.items()
    ]
    tasks = [
        Task(
            name=task,
            splits=results / "splits" / f"{task}.csv",
            audit=results / "splits" / f"{task}.audit.csv",
            truths={
                who: {path.stem: path for path in map(Path, snakemake.input.annotations) if io.is_of(path, who, task)}
                for who in against
            },
            annotation_figures={
                name: results / "annotations" / task / f"{name}.png" for name in snakemake.params.drawn
            },
            has_membranes=task in snakemake.params.membranes,
            steps=[Step(**step) for step in snakemake.params.steps[task]],
        )
        for task, against in snakemake.params.against.items()
    ]
    runs = [
        Run(
            task=table.parts[-4],
            model=table.parts[-3],
            fold=table.parts[-2],
            evaluation=table.parent,
            predictions={name: results.joinpath("predictions", *table.parts[-4:-1], f"{name}.zarr") for name in images},
            directory=results.joinpath("models", *table.parts[-4:-1]),
            description=snakemake.params.descriptions[table.parts[-4]][table.parts[-3]],
        )
        for table in map(Path, snakemake.input.scores)
    ]
    seeds = {task: settings["seed"] for task, settings in snakemake.params.configuration["tasks"].items()}
    report.build_report(
        ReportInputs(
            title=snakemake.params.report["title"],
            volumes=volumes,
            tasks=tasks,
            runs=runs,
            configuration=snakemake.params.configuration,
            provenance=provenance.record(
                seeds={t: s["seed"] for t, s in snakemake.params.configuration["tasks"].items()}
            ),
            benchmarks=results / "benchmarks",
            planned=forecast_page.planned_stages(
                snakemake.params.configuration["config"],
                volumes=snakemake.params.volumes,
                tasks=snakemake.params.tasks,
                resources=dict(snakemake.resources.items()),
            ),
            rulegraph=snakemake.params.page["rulegraph"],
            captions=snakemake.params.page["captions"],
        ),
        out_directory=Path(snakemake.output.page).parent,
        open_volume=io.open_volume,
        max_slices=snakemake.params.report["slices_shown"],
    )
