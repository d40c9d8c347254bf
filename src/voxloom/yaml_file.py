"""YAML as plain data: nothing is executed, and a small file can't stand for a large document.

Imported while the Snakefile is parsed, so it needs nothing but the standard library and PyYAML.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from voxloom.errors import ConfigError
from voxloom.text_file import read_text

MAX_DEPTH = 64
MAX_NODES = 1_000_000
"""Values in a document, those that an alias stands for counted every time."""

TEMPLATE_KEY = "__use_yte__"
"""Under this key Snakemake executes the expressions of a configuration file."""


class _UniqueKeyLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # ten times as fast
    """YAML's safe loader, but a key that stands twice in a mapping is an error and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *anchor, whose keys may be overridden
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: the key {key!r} stands twice in one mapping; remove one of them")
            seen.add(key)
        return super().construct_mapping(node, deep)


_UniqueKeyLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    document : object
        Plain dicts, lists, strings and numbers.

    Raises
    ------
    ConfigError
        If there is no such file, it isn't YAML, a key stands twice, or it would take much more memory than its size, or
        execute what it holds; names the file and the line.
    """
    text = read_text(path)
    try:
        _refuse_bombs(text)
        document = yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(
            f"{path} line {line}: {error.problem}; check the indentation, colons and brackets there"
        ) from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date or number that is none
        said = f"{path} {error}" if isinstance(error, ConfigError) else f"{path}: not readable as YAML: {error}"
        raise ConfigError(said) from None
    if isinstance(document, dict) and TEMPLATE_KEY in document:
        raise ConfigError(f"{path}: {TEMPLATE_KEY} would execute expressions in this file; write their values instead")
    return document


def _refuse_bombs(text: str) -> None:
    """Count values and levels before any is made; the parser itself has no bound."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]  # anchor, and size so far
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, 1))
            if len(open_nodes) > MAX_DEPTH:
                raise ConfigError(f"line {line}: more than {MAX_DEPTH} levels of brackets or indentation; remove some")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_nodes.pop()
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (name for name, _ in open_nodes):
                raise ConfigError(f"line {line}: *{event.anchor} stands inside itself; remove it")
            anchor, size = None, sizes.get(event.anchor or "", 1)
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        outer, total = open_nodes[-1]
        open_nodes[-1] = (outer, total + size)
        if total + size > MAX_NODES:
            raise ConfigError(f"line {line}: its aliases (*) stand for more than {MAX_NODES} values; write them out")
