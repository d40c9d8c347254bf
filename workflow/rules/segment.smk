rule segment:
    """Objects where the prediction reaches the threshold; instance labels without the small ones."""
    input:
        prediction=rules.predict.output.prediction,
        threshold="results/evaluation/{task}/{model}/{fold}/threshold.json",
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
        segment=lookup("{task}/segment", within=TASKS),
        code=code_version("segment"),
    script:
        "../../scripts/segment.py"
