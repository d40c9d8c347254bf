"""Rule segment_part: prediction, threshold and what was found out about its slabs in; some layers of objects out."""

import json

from voxloom import blocks, io
from voxloom.logs import log_to
from voxloom.segmentation import segment_objects

with log_to(snakemake.log[0]):
    prediction = io.open_volume(snakemake.input.prediction)
    with open(snakemake.input.threshold, encoding="utf-8") as file:
        threshold = json.load(file)
    key = io.resume_key(snakemake.input, segment=snakemake.params.segment, code=snakemake.params.code)
    with io.create_volume(
        snakemake.output.part,
        shape=prediction.shape,
        dtype="uint32",
        geometry=prediction.geometry,
        kind="labels",
        multiscale=False,
        resume=key,
    ) as labels:
        keep = io.keep_results(labels.folder, "objects")
        keep.take_over(snakemake.input.looks)
        segment_objects(
            prediction,
            labels,
            stored_threshold=threshold["stored"],
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
            keep=keep,
            z_range=blocks.part_of(labels.shape, labels.shard_shape, snakemake.wildcards.scatteritem),
            **snakemake.params.segment,
        )
        labels.metadata["written"] = labels.written()
