"""Rule segment: prediction and threshold in, numbered objects out."""

import json

from voxloom import io
from voxloom.logs import log_to
from voxloom.segment import segment_volume

with log_to(snakemake.log[0]):
    prediction = io.open_volume(snakemake.input.prediction)
    with open(snakemake.input.threshold, encoding="utf-8") as file:
        threshold = json.load(file)
    with (
        io.create_volume(
            snakemake.output.segmentation,
            shape=prediction.shape,
            dtype="uint32",
            geometry=prediction.geometry,
            kind="labels",
        ) as labels,
        io.scratch_volume(labels.folder, shape=prediction.shape, dtype="uint8") as mask,
    ):
        segmented = segment_volume(
            prediction,
            mask,
            stored_threshold=threshold["stored"],
            memory_mib=snakemake.resources.block_mib,
            labels=labels,
            threads=snakemake.threads,
            **snakemake.params.segment,
        )
        labels.metadata["objects"] = segmented.objects
