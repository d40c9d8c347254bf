rule segment_look:
    """Sizes and seams of the objects in some layers of a prediction; only where resources.scatter is more than 1."""
    input:
        prediction="results/predictions/{task}/{model}/{fold}/{volume}.zarr",
        threshold="results/evaluation/{task}/{model}/{fold}/threshold.json",
    output:
        looks=temp(directory("results/segmentations/{task}/{model}/{fold}/{volume}.{scatteritem}.objects")),
    log:
        "results/logs/segment_look/{task}/{model}/{fold}/{volume}.{scatteritem}.log",
    benchmark:
        "results/benchmarks/segment_look/{task}/{model}/{fold}/{volume}.{scatteritem}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        segment=setting("{task}/segment", within=TASKS),
        code=code_version("segment_look"),
    script:
        "../../scripts/segment_look.py"


rule segment_part:
    """Some layers of a segmentation's shards, with the volume's numbers; only where resources.scatter is more than 1."""
    input:
        prediction="results/predictions/{task}/{model}/{fold}/{volume}.zarr",
        threshold="results/evaluation/{task}/{model}/{fold}/threshold.json",
        looks=parts("results/segmentations/{{task}}/{{model}}/{{fold}}/{{volume}}.{scatteritem}.objects"),
    output:
        part=temp(directory("results/segmentations/{task}/{model}/{fold}/{volume}.{scatteritem}.zarr")),
    log:
        "results/logs/segment_part/{task}/{model}/{fold}/{volume}.{scatteritem}.log",
    benchmark:
        "results/benchmarks/segment_part/{task}/{model}/{fold}/{volume}.{scatteritem}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        segment=setting("{task}/segment", within=TASKS),
        code=code_version("segment_part"),
    script:
        "../../scripts/segment_part.py"


rule segment:
    """Objects where the prediction reaches the threshold; instance labels without the small ones."""
    input:
        prediction="results/predictions/{task}/{model}/{fold}/{volume}.zarr",
        threshold="results/evaluation/{task}/{model}/{fold}/threshold.json",
        looks=parts("results/segmentations/{{task}}/{{model}}/{{fold}}/{{volume}}.{scatteritem}.objects"),
        parts=parts("results/segmentations/{{task}}/{{model}}/{{fold}}/{{volume}}.{scatteritem}.zarr"),
    output:
        segmentation=directory("results/segmentations/{task}/{model}/{fold}/{volume}.zarr"),
    log:
        "results/logs/segment/{task}/{model}/{fold}/{volume}.log",
    benchmark:
        "results/benchmarks/segment/{task}/{model}/{fold}/{volume}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        segment=setting("{task}/segment", within=TASKS),
        code=code_version("segment"),
    script:
        "../../scripts/segment.py"
