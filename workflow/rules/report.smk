rule report:
    """One self-contained page about what ran, how good it is and where it fails, and its figures."""
    input:
        volumes=collect("results/volumes/{volume}.zarr", volume=VOLUMES),
        annotations=[
            store
            for task in TASKS
            for store in annotation_stores(task, ["annotation", *TASKS[task]["evaluate"]["against"]])
        ],
        splits=collect("results/splits/{task}.csv", task=TASKS),
        audits=collect("results/splits/{task}.audit.csv", task=TASKS),
        models=run_files("results/models/{task}/{model}/{fold}", models=TRAINED),
        scores=run_files("results/evaluation/{task}/{model}/{fold}/scores.csv", models=SCORED),
        evaluations=[
            file
            for name in ("threshold.json", "curve.csv", "reliability.csv", "recipe.csv")
            for file in run_files(f"results/evaluation/{{task}}/{{model}}/{{fold}}/{name}", models=SCORED)
        ],
        membranes=[
            file
            for name in ("membrane_scores.csv", "membranes.csv", "membranes")
            for file in run_files(f"results/evaluation/{{task}}/{{model}}/{{fold}}/{name}", models=membrane_models())
        ],
        fusions=run_files("results/evaluation/{task}/{model}/{fold}/fusion.csv", models=CONFIGURATION.fused),
        drawn=[
            f"results/annotations/{task}/{name}.{kind}"
            for task in TASKS
            for name, row in VOLUMES.items()
            for kind in ("png", "svg")
            if "annotation" not in row
        ],
        predictions=run_files(
            "results/predictions/{task}/{model}/{fold}/{volume}.zarr",
            models=SCORED,
            volume=VOLUMES,
        ),
        objects=run_files(
            "results/measurements/{task}/{model}/{fold}/{volume}.summary.csv",
            models=SCORED,
            volume=VOLUMES,
        ),
    output:
        page=report(
            "results/report/index.html",
            caption="../report/workflow.rst",
            category="Report",
        ),
        figures=report(
            directory("results/report/figures"),
            patterns=["{name}.png"],
            caption="../report/figure.rst",
            category="Figures",
        ),
    log:
        "results/logs/report.log",
    conda:
        "../../envs/voxloom.yaml"
    resources:
        mem_mb=memory_mib,
        job_threads=CONFIG["resources"]["threads"],
        device=CONFIG["resources"]["device"],
        gpu_memory_mib=CONFIG["resources"]["gpu_memory_mib"],
        processes=CONFIG["resources"]["processes"],
        scatter=CONFIG["resources"]["scatter"],
    params:
        report=CONFIG["report"],
        page=page_of_report(),
        regions={name: row["region"] for name, row in VOLUMES.items()},
        drawn=[name for name, row in VOLUMES.items() if "annotation" not in row],
        against={task: settings["evaluate"]["against"] for task, settings in TASKS.items()},
        membranes=[task for task, models in membrane_models().items() if models],
        steps={task: references.steps(TASKS[task]) for task in TASKS},
        descriptions={task: references.descriptions(TASKS[task]) for task in TASKS},
        volumes=VOLUMES,
        tasks=TASKS,
        configuration={"config": scientific_configuration(), "tasks": tasks_as_written()},
        code=code_version("report"),
    script:
        "../../scripts/report.py"
