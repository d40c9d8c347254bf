"""Rule train: volumes, annotations and split in, model out."""

import csv
from pathlib import Path

from voxloom import (
    checkpoint,
    few_labels,
    io,
    labelled,
    model,
    plan_file,
    pretrained,
    provenance,
    training,
    training_log,
)
from voxloom.gpu_pool import own_gpus
from voxloom.logs import log_to

with log_to(snakemake.log[0]), own_gpus(getattr(snakemake.resources, "gpu", 0), device=snakemake.resources.device):
    fold = int(snakemake.wildcards.fold)
    images = io.open_volumes(snakemake.input.volumes)
    annotations = io.open_annotations(snakemake.input.annotations)
    name = snakemake.wildcards.model
    settings = plan_file.resolved_models({name: snakemake.params.model}, snakemake.input.plan)[name]
    volumes = labelled.training_volumes(images, annotations, settings["learn_from"])
    with open(snakemake.input.split, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if int(row["fold"]) == fold]
    data = {name: image.metadata["source"] for name, image in images.items()}
    boxes = labelled.boxes_of_fold(rows, fold=fold)
    initial = pretrained.read_initial(next(iter(snakemake.input.initial), None), freeze=settings["freeze"])
    pretrained.refuse_leaks(initial, part_boxes=boxes, volumes=volumes, data=data, settings=settings)
    key = checkpoint.training_key(
        settings=settings,
        seed=snakemake.params.seed,
        split=rows,
        data=data,
        code=snakemake.params.code,
        annotations=io.fingerprints(snakemake.input.annotations),
        initial=initial and initial.sha256,
    )
    state_file = Path(snakemake.output.model).with_name(f".{fold}.checkpoint.pt")
    log = Path(snakemake.log[0])
    curves = log.with_suffix(".tensorboard")
    with training_log.tensorboard(curves, is_wanted=snakemake.resources.tensorboard) as on_epoch:
        trained = training.train_in_processes(
            volumes,
            boxes=few_labels.share_of_boxes(boxes, settings=settings, seed=snakemake.params.seed),
            settings=settings,
            seed=snakemake.params.seed + settings["repeat"],
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
            device=snakemake.resources.device,
            gpu_memory_mib=snakemake.resources.gpu_memory_mib,
            processes=snakemake.resources.processes,
            shared_folder=Path(snakemake.output.model).parent,
            initial=initial,
            resume=checkpoint.load_checkpoint(state_file, key=key),
            on_checkpoint=lambda state: checkpoint.save_checkpoint(state_file, state, key=key),
            checkpoint_minutes=snakemake.resources.checkpoint_minutes,
            on_epoch=on_epoch,
            batch_file=log.with_suffix(".diverged.npz"),
        )
    model.save_model(
        snakemake.output.model,
        trained,
        task=snakemake.wildcards.task,
        model=name,
        plan=plan_file.plan_of(name, snakemake.input.plan),
        fold=fold,
        seed=snakemake.params.seed,
        split_rows=rows,
        data=data,
        versions=provenance.versions(),
        git_commit=provenance.git_commit(),
        is_synthetic=any(io.is_synthetic(image) for image in images.values()),
        initial=initial,
    )
    state_file.unlink(missing_ok=True)
