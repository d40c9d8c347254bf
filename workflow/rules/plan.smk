rule plan:
    """How the models with `network: auto` are trained, and why: sized to the annotation and to the machine."""
    input:
        volumes=collect("results/volumes/{volume}.zarr", volume=VOLUMES),
        annotations=planned_annotations,
    output:
        plan="results/plans/{task}.yaml",
    log:
        "results/logs/plan/{task}.log",
    benchmark:
        "results/benchmarks/plan/{task}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
        device=CONFIG["resources"]["device"],
        processes=CONFIG["resources"]["processes"],
    params:
        models=auto_models,
        split=setting("{task}/split", within=TASKS),
        code=code_version("plan"),
    script:
        "../../scripts/plan.py"
