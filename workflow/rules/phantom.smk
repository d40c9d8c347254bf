rule phantom:
    """A synthetic volume with known truth; the embedded demo's input, and nothing else's."""
    output:
        volume="results/raw/{volume}.nrrd",
        truth="results/raw/{volume}.truth.seg.nrrd",
    log:
        "results/logs/phantom/{volume}.log",
    benchmark:
        "results/benchmarks/phantom/{volume}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        phantom=setting("{volume}", within=CONFIG["phantom"]),
        code=code_version("phantom"),
    script:
        "../../scripts/phantom.py"
