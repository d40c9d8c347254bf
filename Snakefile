"""voxloom: from raw 3-D microscopy to segmentations, measurements and a report."""

from snakemake.utils import min_version

min_version("9.20")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"  # checked configuration, tables, helpers
include: "workflow/rules/phantom.smk"  # nothing                -> raw volume and its truth (demo only)
include: "workflow/rules/fetch.smk"  # an address             -> raw file (examples only)
include: "workflow/rules/convert.smk"  # raw file               -> volume
include: "workflow/rules/annotate.smk"  # volume, recipe         -> annotation
include: "workflow/rules/distance.smk"  # annotation             -> distance map
include: "workflow/rules/plan.smk"  # volumes, annotations   -> settings of models that ask for a plan
include: "workflow/rules/split.smk"  # annotations            -> boxes that train, validate, test
include: "workflow/rules/train.smk"  # volumes, annotations   -> model
include: "workflow/rules/predict.smk"  # volume, model          -> prediction
include: "workflow/rules/evaluate.smk"  # prediction, annotation -> threshold, scores
include: "workflow/rules/segment.smk"  # prediction, threshold  -> numbered objects
include: "workflow/rules/measure.smk"  # objects, volume        -> table of objects
include: "workflow/rules/report.smk"  # everything             -> one page
include: "workflow/rules/manifest.smk"  # everything             -> checksums, what made it


rule all:
    """Everything a reader of the report needs."""
    default_target: True
    input:
        "results/report/index.html",
        on_disk("results/ro-crate-metadata.json"),
        collect("results/distances/{task}/{volume}.zarr", task=TASKS, volume=VOLUMES),
