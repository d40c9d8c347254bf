rule measure:
    """Volume, place, size and grey value of every object."""
    input:
        segmentation=rules.segment.output.segmentation,
        volume=rules.convert.output.volume,
    output:
        objects="results/measurements/{task}/{model}/{fold}/{volume}.csv",
        summary="results/measurements/{task}/{model}/{fold}/{volume}.summary.csv",
    log:
        "results/logs/measure/{task}/{model}/{fold}/{volume}.log",
    benchmark:
        "results/benchmarks/measure/{task}/{model}/{fold}/{volume}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        code=code_version("measure"),
    script:
        "../../scripts/measure.py"
