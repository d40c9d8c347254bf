rule train:
    """A network trained on the split's training boxes; weights, log, settings and model card."""
    input:
        volumes=collect("results/volumes/{volume}.zarr", volume=VOLUMES),
        annotations=learnt_annotations,
        split=rules.split.output.split,
        initial=initial_model,
        plan=model_plan,
    output:
        model=directory("results/models/{task}/{model}/{fold}"),
    log:
        "results/logs/train/{task}/{model}/{fold}.log",
    benchmark:
        "results/benchmarks/train/{task}/{model}/{fold}.tsv"
    conda:
        "../../envs/voxloom.yaml"
    threads: CONFIG["resources"]["threads"]
    resources:
        mem_mb=memory_mib,
        block_mib=block_mib,
        device=CONFIG["resources"]["device"],
        gpu_memory_mib=CONFIG["resources"]["gpu_memory_mib"],
        processes=CONFIG["resources"]["processes"],
        checkpoint_minutes=CONFIG["resources"]["checkpoint_minutes"],
        tensorboard=int(CONFIG["resources"]["tensorboard"]),
    params:
        model=setting("{task}/models/{model}", within=TASKS),
        seed=setting("{task}/seed", within=TASKS),
        code=code_version("train"),
    script:
        "../../scripts/train.py"
