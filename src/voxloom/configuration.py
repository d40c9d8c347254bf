"""The whole configuration of a run: config.yaml, the table of volumes and the task files, checked together.

Imported while the Snakefile is parsed, so it needs nothing but the standard library, PyYAML and jsonschema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxloom import config as checked
from voxloom import plan_file, references
from voxloom.errors import ConfigError

SCHEMAS = Path(__file__).resolve().parents[2] / "workflow" / "schemas"


@dataclass(frozen=True)
class Configuration:
    """What runs on what.

    Parameters
    ----------
    config : dict
        config.yaml with every default.
    volumes : dict of str to dict
        Rows of the table of volumes by name.
    tasks : dict of str to dict
        Task files by name, with the models, ensembles and fusions that run.
    """

    config: dict[str, Any]
    volumes: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]

    @property
    def trained(self) -> dict[str, list[str]]:
        """Each task's models."""
        return {task: [*settings["models"]] for task, settings in self.tasks.items()}

    @property
    def scored(self) -> dict[str, list[str]]:
        """Each task's models, ensembles and fusions."""
        return {task: [name for kind in checked.KINDS for name in task_[kind]] for task, task_ in self.tasks.items()}

    @property
    def fused(self) -> dict[str, list[str]]:
        """Each task's fusions."""
        return {task: [*settings["fusions"]] for task, settings in self.tasks.items()}

    @property
    def folds(self) -> dict[str, list[str]]:
        """Numbers of each task's folds."""
        return {
            task: [str(fold) for fold in range(references.number_of_folds(settings))]
            for task, settings in self.tasks.items()
        }

    def annotators(self, task: str) -> list[str]:
        """Annotations of a task beside its own that its models learn from or are scored against, sorted."""
        settings = self.tasks[task]
        names = {*settings["evaluate"]["against"], *(n for m in settings["models"].values() for n in m["learn_from"])}
        return sorted(names - {"annotation"})


def schema(name: str) -> dict[str, Any]:
    """A JSON schema of workflow/schemas.

    Parameters
    ----------
    name : str
        "config", "task" or "volumes".

    Returns
    -------
    schema : dict

    Raises
    ------
    ConfigError
        If it isn't there: the library was installed without the workflow.
    """
    if not SCHEMAS.is_dir():
        raise ConfigError(
            f"{SCHEMAS} isn't there, so the configuration can't be checked; install voxloom from its checkout "
            "(pip install -e path/to/voxloom)"
        )
    found: dict[str, Any] = checked.read_yaml(SCHEMAS / f"{name}.schema.yaml")
    return found


def complete(document: Mapping[str, Any], *, name: str = "config/config.yaml") -> Configuration:
    """Check config.yaml and all files that it names.

    Parameters
    ----------
    document : mapping
        config.yaml as read. Paths in it are taken from the folder in which this runs.
    name : str
        Its file, for the messages.

    Returns
    -------
    configuration : Configuration

    Raises
    ------
    ConfigError
        Naming every problem: file, key, value, what was expected, and the mend.
    """
    config = checked.check(document, schema("config"), name=name)
    volumes = checked.read_volumes(config["volumes"], schema("volumes"))
    tasks = checked.read_tasks(config["tasks"], folder=config["task_folder"], schema=schema("task"))
    references.check_references(config, volumes, tasks)
    plan_file.check_plans(tasks, schema("task"))
    return Configuration(config, volumes, tasks)


def read(path: str | Path, *, resources: Mapping[str, Any] | None = None) -> Configuration:
    """Read and check a whole configuration.

    Parameters
    ----------
    path : str or Path
        Of config.yaml.
    resources : mapping, optional
        Instead of what stands under ``resources``; None leaves what is there.

    Returns
    -------
    configuration : Configuration

    Raises
    ------
    ConfigError
        As `complete`; or if the file isn't there, or isn't YAML.
    """
    document = checked.read_yaml(path)
    instead = {key: value for key, value in (resources or {}).items() if value is not None}
    if instead and isinstance(document, dict):
        document = {**document, "resources": {**(document.get("resources") or {}), **instead}}
    return complete(document, name=str(path))
