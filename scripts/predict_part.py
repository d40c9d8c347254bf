"""Rule predict_part: volume and model, or an ensemble's models, in; some layers of shards of the probability out."""

from voxloom import devices, inference, io, model
from voxloom.gpu_pool import own_gpus
from voxloom.logs import log_to
from voxloom.volume import PROBABILITY

with log_to(snakemake.log[0]), own_gpus(getattr(snakemake.resources, "gpu", 0), device=snakemake.resources.device):
    devices.limit_gpu_memory(devices.choose_device(snakemake.resources.device), snakemake.resources.gpu_memory_mib)
    volume = io.open_volume(snakemake.input.volume)
    key = io.resume_key(
        snakemake.input,
        predict=snakemake.params.predict,
        test_time=snakemake.params.test_time,
        code=snakemake.params.code,
        device=snakemake.resources.device,
    )
    with io.create_volume(
        snakemake.output.part,
        shape=volume.shape,
        dtype="uint8",
        geometry=volume.geometry,
        kind="probability",
        quantisation=PROBABILITY,
        multiscale=False,
        resume=key,
    ) as out:
        inference.predict_ensemble(
            [model.load_model(folder) for folder in snakemake.input.models],
            volume,
            out,
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
            device=snakemake.resources.device,
            part=snakemake.wildcards.scatteritem,
            **snakemake.params.predict,
            **snakemake.params.test_time,
        )
        out.metadata["written"] = out.written()
