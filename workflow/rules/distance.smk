rule distance:
    """Clipped Euclidean distance to the nearest foreground voxel, in um."""
    input:
        annotation="results/annotations/{task}/{volume}.zarr",
    output:
        distance=directory("results/distances/{task}/{volume}.zarr"),
    log:
        "results/logs/distance/{task}/{volume}.log",
    benchmark:
        "results/benchmarks/distance/{task}/{volume}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        distance=setting("{task}/distance", within=TASKS),
        code=code_version("distance"),
    script:
        "../../scripts/distance.py"
