rule evaluate:
    """Threshold chosen on validation, applied to test; precision-recall curves, scores with 95 % intervals, reliability."""
    input:
        predictions=collect(
            "results/predictions/{{task}}/{{model}}/{{fold}}/{volume}.zarr",
            volume=VOLUMES,
        ),
        volumes=collect("results/volumes/{volume}.zarr", volume=VOLUMES),
        annotations=scored_annotations,
        recipe=collect("results/annotations/{{task}}/{volume}.zarr", volume=VOLUMES),
        split=rules.split.output.split,
        models=member_models,
    output:
        threshold="results/evaluation/{task}/{model}/{fold}/threshold.json",
        scores="results/evaluation/{task}/{model}/{fold}/scores.csv",
        curve="results/evaluation/{task}/{model}/{fold}/curve.csv",
        reliability="results/evaluation/{task}/{model}/{fold}/reliability.csv",
        recipe="results/evaluation/{task}/{model}/{fold}/recipe.csv",
    log:
        "results/logs/evaluate/{task}/{model}/{fold}.log",
    benchmark:
        "results/benchmarks/evaluate/{task}/{model}/{fold}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        evaluate=evaluate_settings,
        test_time=test_time,
        seed=setting("{task}/seed", within=TASKS),
        code=code_version("evaluate"),
    script:
        "../../scripts/evaluate.py"


rule evaluate_membranes:
    """Membranes scored by section as the ISBI 2012 challenge does; maps of splits, mergers and missed membrane."""
    input:
        predictions=collect(
            "results/predictions/{{task}}/{{model}}/{{fold}}/{volume}.zarr",
            volume=VOLUMES,
        ),
        volumes=collect("results/volumes/{volume}.zarr", volume=VOLUMES),
        annotations=threshold_annotations,
        split=rules.split.output.split,
    output:
        sections="results/evaluation/{task}/{model}/{fold}/membranes.csv",
        scores="results/evaluation/{task}/{model}/{fold}/membrane_scores.csv",
        maps=directory("results/evaluation/{task}/{model}/{fold}/membranes"),
    log:
        "results/logs/evaluate_membranes/{task}/{model}/{fold}.log",
    benchmark:
        "results/benchmarks/evaluate_membranes/{task}/{model}/{fold}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        code=code_version("evaluate_membranes"),
    script:
        "../../scripts/evaluate_membranes.py"
