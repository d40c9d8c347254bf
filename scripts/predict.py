"""Rule predict: volume and model, or an ensemble's models in; probability out."""

from voxloom import inference, io, model
from voxloom.logs import log_to
from voxloom.volume import PROBABILITY

with log_to(snakemake.log[0]):
    volume = io.open_volume(snakemake.input.volume)
    with io.create_volume(
        snakemake.output.prediction,
        shape=volume.shape,
        dtype="uint8",
        geometry=volume.geometry,
        kind="probability",
        quantisation=PROBABILITY,
        resume=io.resume_key(snakemake.input, code=snakemake.params.code, device=snakemake.resources.device),
    ) as out:
        out.metadata["prediction"] = inference.predict_ensemble(
            [model.load_model(folder) for folder in snakemake.input.models],
            volume,
            out,
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
            device=snakemake.resources.device,
            **snakemake.params.predict,
        )
