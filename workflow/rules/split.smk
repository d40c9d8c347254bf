rule split:
    """Boxes that train, validate and test, with a guard gap between them, and the audit that proves it."""
    input:
        volumes=collect("results/volumes/{volume}.zarr", volume=VOLUMES),
        annotations=collect("results/annotations/{{task}}/{volume}.zarr", volume=VOLUMES),
        plan=task_plan,
    output:
        split="results/splits/{task}.csv",
        audit="results/splits/{task}.audit.csv",
        figure_svg="results/splits/{task}.svg",
        figure_png="results/splits/{task}.png",
    log:
        "results/logs/split/{task}.log",
    benchmark:
        "results/benchmarks/split/{task}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        split=setting("{task}/split", within=TASKS),
        seed=setting("{task}/seed", within=TASKS),
        regions=[row["region"] for row in VOLUMES.values()],
        networks=split_networks,
        planned=auto_inputs,
        code=code_version("split"),
    script:
        "../../scripts/split.py"
