"""Rule evaluate: predictions, annotations and split in; threshold, scores and curves out."""

import json

from voxloom import evaluate, io, network_scale, split
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    given = dict(snakemake.params.evaluate)
    images = io.open_volumes(snakemake.input.volumes)
    annotations = io.open_annotations(snakemake.input.annotations)
    truths = {name: annotations[name] for name in given.pop("against")}
    table = split.read_split(snakemake.input.split)
    fold = int(snakemake.wildcards.fold)
    evaluation = evaluate.evaluate_prediction(
        io.open_volumes(snakemake.input.predictions),
        truths,
        table,
        fold=fold,
        seed=snakemake.params.seed,
        recipe=io.open_volumes(snakemake.input.recipe),
        network_histograms=network_scale.network_histograms(
            snakemake.input.models,
            images,
            truths,
            table,
            fold=fold,
            threads=snakemake.threads,
            device="cpu",  # some small slices: no GPU is taken from the jobs that keep one
            test_time_flips=snakemake.params.test_time.get("test_time_flips"),
        ),
        threads=snakemake.threads,
        memory_mib=snakemake.resources.block_mib,
        **given,
    )
    io.save_table(evaluation.scores, snakemake.output.scores)
    io.save_table(evaluation.curve, snakemake.output.curve)
    io.save_table(evaluation.reliability, snakemake.output.reliability)
    io.save_table(evaluation.recipe, snakemake.output.recipe)
    with io.atomic_file(snakemake.output.threshold) as temporary:
        temporary.write_text(json.dumps(evaluation.threshold, indent=1), encoding="utf-8")
