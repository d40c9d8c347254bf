rule predict_part:
    """Some layers of shards of a prediction, predicted by a job of its own where resources.scatter is more than 1."""
    input:
        volume=rules.convert.output.volume,
        models=member_models,
    output:
        part=temp(directory("results/predictions/{task}/{model}/{fold}/{volume}.{scatteritem}.zarr")),
    log:
        "results/logs/predict_part/{task}/{model}/{fold}/{volume}.{scatteritem}.log",
    benchmark:
        "results/benchmarks/predict_part/{task}/{model}/{fold}/{volume}.{scatteritem}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
        device=CONFIG["resources"]["device"],
        gpu_memory_mib=CONFIG["resources"]["gpu_memory_mib"],
    params:
        predict=setting("{task}/predict", within=TASKS),
        test_time=test_time,
        code=code_version("predict_part"),
    script:
        "../../scripts/predict_part.py"


rule predict:
    """A network's output over a whole volume, or the mean of an ensemble's; probability as uint8."""
    input:
        volume=rules.convert.output.volume,
        models=member_models,
        parts=parts("results/predictions/{{task}}/{{model}}/{{fold}}/{{volume}}.{scatteritem}.zarr"),
    output:
        prediction=directory("results/predictions/{task}/{model}/{fold}/{volume}.zarr"),
    log:
        "results/logs/predict/{task}/{model}/{fold}/{volume}.log",
    benchmark:
        "results/benchmarks/predict/{task}/{model}/{fold}/{volume}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
        device=CONFIG["resources"]["device"],
        gpu_memory_mib=CONFIG["resources"]["gpu_memory_mib"],
    params:
        predict=setting("{task}/predict", within=TASKS),
        test_time=test_time,
        code=code_version("predict"),
    script:
        "../../scripts/predict.py"
