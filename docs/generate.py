"""Rewrites the pages that come from the code: config/README.md, docs/rules.md, docs/modules.md and the rule graph.

    python docs/generate.py            rewrite them
    python docs/generate.py --check    say which are stale, exit 1 if any is

Run from the repository's root, in the environment that `make test` makes.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIG_INTRO = """\
# Configuration

{note}

- `config.yaml` says which volumes, tasks and models to run, and with how much memory.
- `volumes.tsv` has one row a volume, tab-separated. Leave a cell empty where there is nothing to say.
- `tasks/<task>.yaml` is one scientific question: how it is annotated, split, learnt and scored. Copy one and edit it.
- `examples/` holds whole configurations for real data; run one with
  `snakemake --directory config/examples/<name> --cores 8`.

Unknown keys are refused, with the nearest known one. Lengths are in um and say so in their names.
"""
NOTE = "<!-- Written by docs/generate.py from workflow/schemas; edit those and run `make docs`. -->"


def config_reference() -> str:
    """The configuration's keys, with type, default and meaning, from the schemas."""
    parts = [CONFIG_INTRO.format(note=NOTE)]
    for name, heading in (
        ("config", "config.yaml"),
        ("volumes", "volumes.tsv, a row"),
        ("task", "tasks/&lt;task&gt;.yaml"),
    ):
        schema = yaml.safe_load((ROOT / "workflow" / "schemas" / f"{name}.schema.yaml").read_text())
        rows = ["| key | type | default | meaning |", "|---|---|---|---|", *_rows(schema, schema, "")]
        parts.append(f"## {heading}\n\n" + "\n".join(rows) + "\n")
        if name == "task":
            steps = schema["$defs"]["recipe"]["items"]
            rows = ["| step | type | default | meaning |", "|---|---|---|---|", *_rows(steps, schema, "")]
            parts.append("### Steps of a recipe\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _rows(schema: dict[str, Any], root: dict[str, Any], prefix: str) -> list[str]:
    rows = []
    required = schema.get("required", [])
    for key, part in {**schema.get("properties", {}), **schema.get("patternProperties", {})}.items():
        rows += _entry(_resolve(part, root), root, prefix + _column_name(key), key in required)
    other = schema.get("additionalProperties")
    if isinstance(other, dict):
        rows += _entry(_resolve(other, root), root, f"{prefix}&lt;name&gt;", False)
    return rows


def _column_name(key: str) -> str:
    return "annotation_&lt;annotator&gt;" if key.startswith("^annotation_") else key


def _entry(part: dict[str, Any], root: dict[str, Any], name: str, required: bool) -> list[str]:
    meaning = " ".join(part.get("description", "").split()).replace("|", "\\|")
    rows = [f"| `{name}` | {_kind(part)} | {_default(part, required)} | {meaning} |".replace("`&lt;", "`<")]
    rows = [re.sub(r"`([^`]*)`", lambda m: "`" + m[1].replace("&lt;", "<").replace("&gt;", ">") + "`", r) for r in rows]
    if "properties" in part or isinstance(part.get("additionalProperties"), dict):
        rows += _rows(part, root, f"{name}.")
    items = _resolve(part.get("items", {}), root) if isinstance(part.get("items"), dict) else {}
    if "properties" in items and "maxProperties" not in items:
        rows += _rows(items, root, f"{name}[].")
    return rows


def _resolve(part: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in part:
        target: Any = root
        for step in part["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        part = {**target, **{k: v for k, v in part.items() if k != "$ref"}}
    return part


def _kind(part: dict[str, Any]) -> str:
    if "enum" in part:
        return ", ".join(map(str, part["enum"]))
    if "oneOf" in part and "type" not in part:
        return " or ".join(str(option.get("const", option.get("type", ""))) for option in part["oneOf"])
    kinds = part.get("type", "")
    text = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    limits = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return " ".join([text, *(f"{sign} {part[key]}" for key, sign in limits.items() if key in part)])


def _default(part: dict[str, Any], required: bool) -> str:
    if required:
        return "*required*"
    if part.get("default") in ({}, None, "") and part.get("type") in ("object", "string"):
        return ""
    return f"`{part['default']}`" if "default" in part else ""


def rule_list() -> str:
    """The rules and the first lines of their docstrings."""
    text = _snakemake("--list-rules")
    rules = re.findall(r"^(\w+) \((.+)\)$", text, re.M)
    if not rules:
        raise SystemExit(f"no rule found in what snakemake --list-rules said:\n{text}")
    rows = ["| rule | what it makes |", "|---|---|", *(f"| `{name}` | {what} |" for name, what in rules)]
    return f"# Rules\n\n{NOTE.replace('workflow/schemas', 'workflow/rules')}\n\n" + "\n".join(rows) + "\n"


def module_list() -> str:
    """The library's modules and the first lines of their docstrings."""
    rows = ["| module | what it is |", "|---|---|"]
    package = ROOT / "src" / "voxloom"
    for path in sorted(package.rglob("*.py"), key=lambda p: p.relative_to(package).with_suffix("").parts):
        name = ".".join(path.relative_to(package).with_suffix("").parts).removesuffix("__init__").rstrip(".")
        what = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
        rows.append(f"| `{name or 'voxloom'}` | {' '.join(what.split())} |")
    note = NOTE.replace("workflow/schemas; edit those", "the docstrings; edit those")
    return f"# Modules of the library\n\n{note}\n\n" + "\n".join(rows) + "\n"


def rule_graph() -> str:
    """Which rule takes what from which, in dot, without colours."""
    text = _snakemake("--rulegraph", "--forceall")
    nodes = dict(re.findall(r'(\d+)\[label = "(\w+)"', text))
    names = sorted(nodes.values())
    edges = sorted({(names.index(nodes[a]), names.index(nodes[b])) for a, b in re.findall(r"(\d+) -> (\d+)", text)})
    lines = [f'  {number}[label = "{name}"];' for number, name in enumerate(names)]
    lines += [f"  {a} -> {b};" for a, b in edges]
    return "digraph rules {\n" + "\n".join(lines) + "\n}\n"


def _snakemake(*words: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--nolock", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


PAGES = {
    "config/README.md": config_reference,
    "docs/rules.md": rule_list,
    "docs/modules.md": module_list,
    "workflow/report/rulegraph.dot": rule_graph,
}

if __name__ == "__main__":
    pages = {ROOT / name: make() for name, make in PAGES.items()}
    stale = [path for path, text in pages.items() if not path.is_file() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is stale: run `make docs` and commit it")
        sys.exit(bool(stale))
    for path in stale:
        path.write_text(pages[path])
        print(f"rewrote {path.relative_to(ROOT)}")
