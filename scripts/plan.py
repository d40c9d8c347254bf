"""Rule plan: volumes and annotations in; settings of the models that wait for them, with reasons, out."""

from voxloom import fingerprint, io, labelled, plan, plan_file
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    images = io.open_volumes(snakemake.input.volumes)
    annotations = io.open_annotations(snakemake.input.annotations)
    fingerprints = {
        model: fingerprint.take_fingerprint(labelled.training_volumes(images, annotations, settings["learn_from"]))
        for model, settings in snakemake.params.models.items()
    }
    planned = plan.plan_task(
        fingerprints,
        task=snakemake.wildcards.task,
        models=snakemake.params.models,
        split=snakemake.params.split,
        device=snakemake.resources.device,
        threads=snakemake.threads,
        memory_mib=snakemake.resources.block_mib,
        processes=snakemake.resources.processes,
    )
    with io.atomic_file(snakemake.output.plan) as temporary:
        plan_file.write_plan(temporary, planned)
