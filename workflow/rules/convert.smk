rule convert:
    """Any raw file as OME-Zarr, with its voxel size in um, origin, header and checksum."""
    input:
        raw=raw_files,
    output:
        volume=directory("results/volumes/{volume}.zarr"),
    log:
        "results/logs/convert/{volume}.log",
    benchmark:
        "results/benchmarks/convert/{volume}.tsv"
    cache: IS_CACHED
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        convert=CONFIG["convert"],
        volume=conversion_settings,
        code=code_version("convert"),
    script:
        "../../scripts/convert.py"


if IS_CACHED:  # a result that may come from a cache can't be measured; Snakemake refuses to
    rules.convert.rule._benchmark = None
