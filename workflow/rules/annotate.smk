rule annotate:
    """The task's recipe applied to a volume; foreground, background, and what is ignored."""
    input:
        volume=rules.convert.output.volume,
    output:
        annotation=directory("results/annotations/{task}/{volume}.zarr"),
        figure_svg="results/annotations/{task}/{volume}.svg",
        figure_png="results/annotations/{task}/{volume}.png",
    log:
        "results/logs/annotate/{task}/{volume}.log",
    benchmark:
        "results/benchmarks/annotate/{task}/{volume}.tsv"
    wildcard_constraints:
        volume=one_of(volume for volume, row in VOLUMES.items() if "annotation" not in row),
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        recipe=setting("{task}/annotate/recipe", within=TASKS),
        code=code_version("annotate"),
    script:
        "../../scripts/annotate.py"


rule annotate_import:
    """An annotation file that volumes.tsv names; it replaces the recipe (annotation) or stands beside it."""
    input:
        volume=rules.convert.output.volume,
        files=annotation_files,
    output:
        annotation=directory("results/annotations{annotator}/{task}/{volume}.zarr"),
    log:
        "results/logs/annotate_import/{task}/{volume}{annotator}.log",
    benchmark:
        "results/benchmarks/annotate_import/{task}/{volume}{annotator}.tsv"
    wildcard_constraints:
        annotator=r"(\.[a-z][a-z0-9]*)?",
    conda:
        "../../envs/voxloom.yaml"
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
    params:
        path=annotation_path,
        file=annotation_settings,
        axes=setting("{volume}/axes", within=VOLUMES),
        code=code_version("annotate_import"),
    script:
        "../../scripts/annotate_import.py"


ruleorder: annotate > annotate_import
