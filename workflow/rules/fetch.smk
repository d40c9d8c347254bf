rule fetch:
    """A public file of an example, downloaded and checked; runs only where config.yaml lists downloads."""
    output:
        file="results/downloads/{file}",
    log:
        "results/logs/fetch/{file}.log",
    wildcard_constraints:
        file=one_of(CONFIG["downloads"]),
    cache: IS_CACHED
    localrule: True  # a cluster's nodes may not reach the internet
    conda:
        "../../envs/voxloom.yaml"
    params:
        download=lambda wildcards: CONFIG["downloads"][wildcards.file],
        code=code_version("fetch"),
    script:
        "../../scripts/fetch.py"
