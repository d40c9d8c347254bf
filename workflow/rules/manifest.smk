rule manifest:
    """What made the results, and a checksum of each file: an RO-Crate, with which `voxloom verify` compares."""
    input:
        page=rules.report.output.page,
        figures=rules.report.output.figures,
        distances=collect("results/distances/{task}/{volume}.zarr", task=TASKS, volume=VOLUMES),
    output:
        crate="results/ro-crate-metadata.json",
        checksums="results/manifest/checksums.sha256",
        configuration="results/manifest/configuration.yaml",
    log:
        "results/logs/manifest.log",
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
    params:
        configuration={"config": scientific_configuration(), "volumes": VOLUMES, "tasks": tasks_as_written()},
        title=CONFIG["report"]["title"],
        licence=CONFIG["report"]["licence"],
        seeds={task: settings["seed"] for task, settings in TASKS.items()},
        code=code_version("manifest"),
    script:
        "../../scripts/manifest.py"
