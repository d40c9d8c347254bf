"""The house is in order: formatting, types, layers, names, and pages that follow the code."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packages import imported

from voxloom.provenance import code_version, reached_modules

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
RULE_FILES = sorted((ROOT / "workflow" / "rules").glob("*.smk"))
STAGES = [path.stem for path in RULE_FILES if path.stem != "common"]


def succeeds(*command):
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def rules():
    """Name and text of every rule."""
    for path in RULE_FILES:
        for block in re.split(r"^rule ", path.read_text(), flags=re.M)[1:]:
            yield block.split(":", 1)[0], block, path


@pytest.mark.parametrize(
    "command",
    [
        [BIN / "ruff", "check", "."],
        [BIN / "ruff", "format", "--check", "."],
        [BIN / "mypy"],
        [BIN / "lint-imports"],
        [BIN / "snakefmt", "--check", "--compact-diff", "Snakefile", "workflow"],
        [
            BIN / "codespell",
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "docs",
            "src",
            "scripts",
            "workflow",
            "config",
        ],
        [sys.executable, "-m", "snakemake", "--lint"],
        [sys.executable, "docs/generate.py", "--check"],
    ],
    ids=lambda command: " ".join(Path(word).name for word in command[:3]),
)
def test_checks_pass(command):
    succeeds(*command)


def test_the_root_snakefile_includes_every_rule_file_and_nothing_else():
    included = re.findall(r'include: "workflow/rules/(\w+)\.smk"', (ROOT / "Snakefile").read_text())
    assert sorted(included) == sorted([*STAGES, "common"])


@pytest.mark.parametrize(
    ("name", "text", "path"), list(rules()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_rule_has_its_own_docstring_log_and_script(name, text, path):
    assert name == path.stem or name.startswith(path.stem + "_"), "a rule is named after its stage"
    assert re.search(r'^    """.+', text, re.M), "the docstring is the manual"
    assert f'"results/logs/{name}/' in text or f'"results/logs/{name}.log"' in text
    if "script:" in text:
        assert f'"../../scripts/{name}.py"' in text
        assert f'code=code_version("{name}")' in text
        assert (ROOT / "scripts" / f"{name}.py").is_file()


def test_no_script_is_without_its_rule():
    names = {name for name, _, _ in rules()}
    assert {path.stem for path in (ROOT / "scripts").glob("*.py")} <= names


def test_scripts_define_nothing():
    for path in (ROOT / "scripts").glob("*.py"):
        kinds = (ast.FunctionDef, ast.ClassDef, ast.If, ast.While, ast.Try)
        found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
        assert not found, f"{path.name} line {found[0].lineno}: what wants logic belongs in the library"


def test_jobs_without_a_network_do_not_wait_for_one():
    """PyTorch and seaborn take a second to import; each of the others as long as all that a small job needs."""
    scripts = [
        path
        for path in (ROOT / "scripts").glob("*.py")
        if path.stem not in ("plan", "predict", "predict_part", "train")
    ]
    kinds = (ast.Import, ast.ImportFrom)
    imports = [
        ast.unparse(node) for path in scripts for node in ast.parse(path.read_text()).body if isinstance(node, kinds)
    ]
    slow = {"torch", "seaborn", "numba", "skimage", "scipy", "pandas", "matplotlib", "jsonschema"}
    code = "\n".join([*imports, "import sys", f"print({slow} & set(sys.modules) or 'none')"])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "src", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "none"


def test_what_the_benchmarks_compare_with_is_never_imported():
    peers = {"monai", "nnunetv2", "edt", "kimimaro", "nrrd", "SimpleITK", "zarr", "sklearn", "torchmetrics"}
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        assert not peers & imported(path), path


def test_the_benchmarks_hand_every_stage_the_resources_that_it_asks_for():
    benchmark = (ROOT / "benchmarks" / "stage_jobs.py").read_text()
    handed = set(re.findall(r"(\w+)=", benchmark.split("resources=SimpleNamespace(")[1].split("\n        ),")[0]))
    for script in sorted((ROOT / "scripts").glob("*.py")):
        if script.stem != "train" and f'"{script.stem}"' in benchmark:
            assert set(re.findall(r"snakemake\.resources\.(\w+)", script.read_text())) <= handed, script.name


def test_code_version_sees_code_but_not_comments_or_docstrings(tmp_path):
    script = tmp_path / "a.py"
    versions = []
    for text in ('"""One."""\nx = 1\n', '"""Two."""\nx = 1  # why\n', "x = 2\n"):
        script.write_text(text)
        code_version.__globals__["_read"].cache_clear()
        code_version.__globals__["_imports"].cache_clear()
        versions.append(code_version(script))
    assert versions[0] == versions[1] != versions[2]


def test_code_version_is_the_same_where_files_were_read_before(tmp_path, monkeypatch):
    names = code_version.__globals__
    monkeypatch.setitem(names, "READ_BEFORE", tmp_path / "__pycache__" / "read.json")
    versions = []
    for _ in range(2):
        for name in ("_read", "_known", "_imports"):
            names[name].cache_clear()
        versions.append(code_version(ROOT / "scripts" / "convert.py"))
        assert names["READ_BEFORE"].is_file()
    assert versions[0] == versions[1]


def test_training_does_not_reach_what_only_the_report_needs():
    assert "voxloom.report" not in reached_modules(ROOT / "scripts" / "train.py")
    assert "voxloom.distance" not in reached_modules(ROOT / "scripts" / "convert.py")
    assert "voxloom.networks" in reached_modules(ROOT / "scripts" / "predict.py")


def test_there_is_no_absolute_path_of_a_machine_in_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    pattern = re.compile(rb"(^|[^\w.])/(home|root|work|Users)/\w")
    guilty = [
        name for name in listed if name != "tests/workflow/test_house.py" and pattern.search((ROOT / name).read_bytes())
    ]
    assert not guilty
