"""Rule segment_look: prediction and threshold in; sizes and seams of the objects of some slabs out."""

import json

from voxloom import blocks, io
from voxloom.logs import log_to
from voxloom.segmentation import look_at_objects

with log_to(snakemake.log[0]):
    prediction = io.open_volume(snakemake.input.prediction)
    with open(snakemake.input.threshold, encoding="utf-8") as file:
        threshold = json.load(file)
    key = io.resume_key(snakemake.input, segment=snakemake.params.segment, code=snakemake.params.code)
    with io.kept_results(snakemake.output.looks, resume=key) as keep:
        look_at_objects(
            prediction,
            keep,
            stored_threshold=threshold["stored"],
            memory_mib=snakemake.resources.block_mib,
            threads=snakemake.threads,
            z_range=blocks.part_of(prediction.shape, prediction.shard_shape, snakemake.wildcards.scatteritem),
            **snakemake.params.segment,
        )
