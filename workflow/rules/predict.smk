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
    wildcard_constraints:
        model=one_of(NETWORKS),
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
    wildcard_constraints:
        model=one_of(NETWORKS),
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


rule predict_fusion_weight:
    """How much of a watershed's contours a fusion takes: the weight of the training sections' smallest Rand error."""
    input:
        predictions=unfused_predictions,
        annotations=threshold_annotations,
        split=rules.split.output.split,
    output:
        curve="results/evaluation/{task}/{model}/{fold}/fusion.csv",
    log:
        "results/logs/predict_fusion_weight/{task}/{model}/{fold}.log",
    benchmark:
        "results/benchmarks/predict_fusion_weight/{task}/{model}/{fold}.tsv"
    wildcard_constraints:
        model=one_of(FUSED),
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        marker_below=setting("{task}/fusions/{model}/marker_below", within=TASKS),
        code=code_version("predict_fusion_weight"),
    script:
        "../../scripts/predict_fusion_weight.py"


rule predict_fused:
    """A membrane prediction with the contours of a watershed on it; probability as uint8."""
    input:
        prediction=unfused_prediction,
        curve=rules.predict_fusion_weight.output.curve,
    output:
        prediction=directory("results/predictions/{task}/{model}/{fold}/{volume}.zarr"),
    log:
        "results/logs/predict_fused/{task}/{model}/{fold}/{volume}.log",
    benchmark:
        "results/benchmarks/predict_fused/{task}/{model}/{fold}/{volume}.tsv"
    wildcard_constraints:
        model=one_of(FUSED),
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        marker_below=setting("{task}/fusions/{model}/marker_below", within=TASKS),
        code=code_version("predict_fused"),
    script:
        "../../scripts/predict_fused.py"
