"""Checked configuration, tables, and every helper of the rules."""

import re
import shutil
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.persistence import PersistenceBase
from snakemake.settings.types import ExecMode

ROOT = Path(str(workflow.current_basedir)).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # Snakemake hands its sys.path on to every script, whatever runs it

from voxloom import addresses
from voxloom import config as checked
from voxloom import configuration, forecast_check, job_memory, network_reach, plan_file, process, provenance
from voxloom import references, takeover
from voxloom.errors import ConfigError
from voxloom.references import one_of

try:
    if Path("config/config.yaml").is_file():  # before Snakemake reads it, which may execute what it says
        checked.read_yaml("config/config.yaml")
except ConfigError as error:
    raise WorkflowError(str(error)) from None


configfile: "config/config.yaml"


try:
    for path in workflow.configfiles:  # Snakemake's own reader takes the last of two equal keys without a word
        checked.read_yaml(path)
    CONFIGURATION = configuration.complete(config)
    IS_CACHED = workflow.workflow_settings.cache is not None  # --cache: projects share conversions and downloads
    references.check_cache(CONFIGURATION.volumes if IS_CACHED else {}, table=CONFIGURATION.config["volumes"])
except ConfigError as error:
    raise WorkflowError(str(error)) from None

if not workflow.subprocess_exec:
    process.announce_workflow()
if not workflow.is_main_process and takeover.is_replaced():
    raise WorkflowError("this job was submitted by a run that was killed; another run has taken over this folder")


class Instead:
    """Something with some of its attributes replaced."""

    def __init__(self, of, **attributes):
        self.__dict__.update(attributes, of=of)

    def __getattr__(self, name):
        return getattr(self.of, name)


def recording(finished):
    """A job that is finished on a cluster's node also writes down what it was made with.

    Snakemake leaves that to the process that submitted the job. Where that was killed, its next run would take what the
    job finished meanwhile for a result of the configuration that is there then.
    """

    async def finished_and_recorded(persistence, job):
        dag = persistence.dag
        submitting = Instead(dag.workflow, exec_mode=ExecMode.DEFAULT)
        persistence.dag = Instead(dag, workflow=submitting)
        try:
            await finished(persistence, job)
        finally:
            persistence.dag = dag

    return finished_and_recorded


if workflow.remote_exec:
    PersistenceBase.finished = recording(PersistenceBase.finished)


onstart:
    takeover.announce_run()


onsuccess:
    remove_left_parts()


CONFIG, VOLUMES, TASKS = CONFIGURATION.config, CONFIGURATION.volumes, CONFIGURATION.tasks
ANNOTATION_DEFAULTS = checked.check({}, configuration.schema("task")["$defs"]["annotation_file"], name="annotate.files")
ANNOTATORS = references.annotators(VOLUMES)
JOB_CHECK = forecast_check.JobCheck(CONFIGURATION)
TRAINED, SCORED, FOLDS = CONFIGURATION.trained, CONFIGURATION.scored, CONFIGURATION.folds
FUSED = {name for names in CONFIGURATION.fused.values() for name in names}
NETWORKS = {name for names in SCORED.values() for name in names} - FUSED


wildcard_constraints:
    volume=one_of(VOLUMES),
    task=one_of(TASKS),
    model=one_of(NETWORKS | FUSED),
    fold=r"\d+",
    annotator=one_of(ANNOTATORS),


scattergather:
    parts=CONFIG["resources"]["scatter"],


def remove_left_parts():
    """Remove parts of volumes that are whole: a run that was killed after its job joined them didn't come to it."""
    for part in Path("results").glob("*/*/*/*/*.*-of-*.*"):
        volume = re.fullmatch(r"(.+)\.\d+-of-\d+\.(?:zarr|objects)", part.name)
        if volume and part.with_name(f"{volume[1]}.zarr").exists():
            shutil.rmtree(part)


def code_version(rule_name):
    """A hash of the rule's script and of the library behind it: an edited algorithm reruns what reaches it."""
    return provenance.code_version(ROOT / "scripts" / f"{rule_name}.py")


def setting(path, within):
    """As Snakemake's lookup, which for every job walks through all of a table and not to the one row."""

    def look_up(wildcards):
        found = within
        for key in path.format(**dict(wildcards.items())).split("/"):
            found = found[key]
        return found

    return look_up


def memory_mib(wildcards, attempt, rulename):
    """The configured memory of a job; a job that was killed for memory is tried again with more."""
    try:
        if workflow.is_main_process and attempt == 1:
            JOB_CHECK.refuse(rulename, dict(wildcards.items()))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
    return memory_of_attempt(attempt)


def memory_of_attempt(attempt):
    """What a job asks for when it is tried for the first time, or again."""
    settings = CONFIG["resources"]
    return job_memory.of_attempt(settings["memory_mib"], memory_limit_mib=settings["memory_limit_mib"], attempt=attempt)


def block_mib(wildcards, attempt):
    """What of a job's memory its blocks may take; the rest is the interpreter's and its libraries'."""
    return job_memory.block_mib(memory_of_attempt(attempt))


def raw_files(wildcards):
    """Files behind a volume's path: one, all that match a pattern, or what an address names."""
    return files_behind(VOLUMES[wildcards.volume]["path"])


def on_disk(path):
    """A result of all others, where they are kept on a disk; nothing where they go to a storage that no job sees all of."""
    return [path] if workflow.storage_settings.default_storage_provider is None else []


def files_behind(path):
    """Files that a path of volumes.tsv stands for; never looked for in the storage that results may go to."""
    files = references.raw_files(path)
    if addresses.scheme(path):
        return storage(files)
    is_result = path.startswith("results/") or workflow.storage_settings.default_storage_provider is None
    return files if is_result else local(files)


def conversion_settings(wildcards):
    """What a volume's row says about its file; who annotated it or its region converts nothing again."""
    row = VOLUMES[wildcards.volume]
    return {key: row[key] for key in ("path", "voxel_size_um", "axes", "slices") if key in row}


def annotation_path(wildcards):
    """The path in volumes.tsv of an annotator's file; no such column is no such rule."""
    column = f"annotation{wildcards.annotator.replace('.', '_')}"
    return VOLUMES[wildcards.volume].get(column, f"column {column} of volumes.tsv")


def annotation_files(wildcards):
    """Files behind an annotator's path."""
    return files_behind(annotation_path(wildcards))


def annotation_settings(wildcards):
    """How an annotator's file is read for a task."""
    files = TASKS[wildcards.task]["annotate"]["files"]
    return files.get(wildcards.annotator.removeprefix(".") or "annotation", ANNOTATION_DEFAULTS)


def split_networks(wildcards):
    """What decides how far the task's networks see; nothing else of a model moves the split."""
    seen = []
    for model in TASKS[wildcards.task]["models"].values():
        if plan_file.is_auto(model):
            continue  # its plan says how far it sees
        network = {key: model["network"][key] for key in network_reach.KEYS}
        reach = {"network": network, "input": {"size": model["input"]["size"]}}
        seen += [reach] if reach not in seen else []
    return sorted(seen, key=str)


def auto_models(wildcards):
    """The task's models that wait for a plan, with nothing of their settings but what the plan depends on."""
    return plan_file.to_plan(TASKS[wildcards.task]["models"])


def auto_inputs(wildcards):
    """What of the task's models that wait for a plan decides, beside the plan, how far they see."""
    return {
        name: {"network": model["network"], "given": {"input": model["given"].get("input", {})}}
        for name, model in auto_models(wildcards).items()
    }


def task_plan(wildcards):
    """The plan of the task's models whose network is auto; none where there is no such model."""
    plan = TASKS[wildcards.task]["plan"] or f"results/plans/{wildcards.task}.yaml"
    return plan if auto_models(wildcards) else []


def model_plan(wildcards):
    """The plan of a model whose network is auto."""
    return task_plan(wildcards) if wildcards.model in auto_models(wildcards) else []


def planned_annotations(wildcards):
    """Annotations that the task's models with a plan learn from."""
    names = [name for model in auto_models(wildcards).values() for name in model["learn_from"]]
    return annotation_stores(wildcards.task, names)


def annotation_store(task, volume, name):
    """Where the annotation of that name is; "annotation" is the recipe's, or the file that replaces it."""
    folder = "annotations" if name == "annotation" else f"annotations.{name}"
    return f"results/{folder}/{task}/{volume}.zarr"


def annotation_stores(task, names):
    """Stores of the named annotations, of every volume that has them."""
    return [
        annotation_store(task, volume, name)
        for name in dict.fromkeys(names)
        for volume, row in VOLUMES.items()
        if name == "annotation" or f"annotation_{name}" in row
    ]


def learnt_annotations(wildcards):
    """Annotations that a model learns from, the winning ones first."""
    return annotation_stores(wildcards.task, TASKS[wildcards.task]["models"][wildcards.model]["learn_from"])


def initial_model(wildcards):
    """The model whose weights a training begins with; a model of the workflow is trained first."""
    return references.initial_model(TASKS, wildcards.task, wildcards.model, fold=int(wildcards.fold))


def member_models(wildcards):
    """The trained models behind a name: a model itself, or an ensemble's members, all of the same fold; no fusion's."""
    members = references.members(TASKS[wildcards.task], wildcards.model)
    return expand("results/models/{task}/{model}/{fold}", task=wildcards.task, model=members, fold=wildcards.fold)


def test_time(wildcards):
    """The transforms that an ensemble asks for instead of its members' own; nothing for a model."""
    return references.test_time(TASKS[wildcards.task], wildcards.model)


def unfused_prediction(wildcards):
    """The prediction that a fusion is made of."""
    of = TASKS[wildcards.task]["fusions"][wildcards.model]["of"]
    return f"results/predictions/{wildcards.task}/{of}/{wildcards.fold}/{wildcards.volume}.zarr"


def unfused_predictions(wildcards):
    """The predictions of all volumes that a fusion is made of."""
    of = TASKS[wildcards.task]["fusions"][wildcards.model]["of"]
    return [f"results/predictions/{wildcards.task}/{of}/{wildcards.fold}/{volume}.zarr" for volume in VOLUMES]


def scored_annotations(wildcards):
    """Annotations that a task is scored against."""
    return annotation_stores(wildcards.task, TASKS[wildcards.task]["evaluate"]["against"])


def threshold_annotations(wildcards):
    """Annotations against which thresholds are chosen: those of the first of a task's truths."""
    return annotation_stores(wildcards.task, TASKS[wildcards.task]["evaluate"]["against"][:1])


def evaluate_settings(wildcards):
    """How predictions are scored voxel by voxel; whether membranes are scored, too, changes nothing of it."""
    try:
        references.refuse_without_validation(TASKS[wildcards.task]["split"], task=wildcards.task)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None
    return {key: value for key, value in TASKS[wildcards.task]["evaluate"].items() if key != "membranes"}


def membrane_models():
    """Each task's models that are scored by the ISBI 2012 challenge's measures, too."""
    return {task: SCORED[task] if TASKS[task]["evaluate"]["membranes"] else [] for task in TASKS}


def page_of_report():
    """What the page is made of beside the results; as contents, so that another folder reruns nothing."""
    return {
        "captions": checked.read_yaml(ROOT / "workflow" / "report" / "captions.yaml"),
        "rulegraph": (ROOT / "workflow" / "report" / "rulegraph.dot").read_text(),
        "template": provenance.content_version(ROOT / "src" / "voxloom" / "report_template.html"),
    }


def scientific_configuration():
    """The configuration without what a job may use of the machine; other threads need no other report."""
    return {key: value for key, value in CONFIG.items() if key != "resources"}


def tasks_as_written():
    """The tasks, without the defaults that a plan replaces."""
    return {name: {**task, "models": plan_file.shown(task["models"])} for name, task in TASKS.items()}


def parts(pattern):
    """The parts of a result that jobs of their own make; none where one job makes all of it."""
    names = gather.parts(pattern)
    return names if len(names) > 1 else []


def run_files(pattern, models, volume=("",)):
    """The pattern filled in for every task and fold that runs, and these models of each task."""
    return [
        pattern.format(task=task, model=model, fold=fold, volume=name)
        for task in TASKS
        for model in models[task]
        for fold in FOLDS[task]
        for name in volume
    ]
