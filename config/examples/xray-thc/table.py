"""Prints the table of docs/examples.md: Dice against the human labels, plane by plane.

python config/examples/xray-thc/table.py    after the example has run
"""

from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
PLANES = {"0": "z200", "1": "z230", "2": "z260"}
FOLDS = sorted(PLANES)


def dice(counts: pd.DataFrame) -> float:
    return 2 * counts.tp.sum() / (2 * counts.tp.sum() + counts.fp.sum() + counts.fn.sum())


def row(name: str, task: str, parts: list[pd.DataFrame], ap: str = "–") -> str:
    each = [dice(part) for part in parts]
    cells = [*(f"{value:.3f}" for value in each), f"{sum(each) / len(each):.3f}", f"{dice(pd.concat(parts)):.3f}", ap]
    return f"| {task} | {name} | {' | '.join(cells)} |"


def model_rows(task: str, model: Path) -> str:
    parts, precisions = [], []
    for fold in FOLDS:
        scores = pd.read_csv(model / fold / "scores.csv")
        chosen = scores[
            (scores.against == "human")
            & (scores.part == "test")
            & (scores.scope == "pooled")
            & (scores.grid == "native")
        ]
        curve = pd.read_csv(model / fold / "curve.csv")
        curve = curve[(curve.against == "human") & (curve.part == "test") & (curve.scope == "pooled")]
        # the last point of the curve at which a voxel at the threshold is still foreground
        parts.append(curve[curve.threshold >= chosen.threshold.item() - 1e-9].nsmallest(1, "threshold"))
        precisions.append(chosen.average_precision.item())
    return row(model.name, task, parts, f"{sum(precisions) / len(precisions):.3f}")


def main() -> None:
    print(f"| task | model | {' | '.join(PLANES.values())} | mean | pooled | mean AP |")
    print("|---|---|---|---|---|---|---|---|")
    for task in sorted((HERE / "results" / "evaluation").iterdir()):
        models = sorted(path for path in task.iterdir() if all((path / f / "scores.csv").is_file() for f in FOLDS))
        for model in models:
            print(model_rows(task.name, model))
        if models:
            recipes = [pd.read_csv(models[0] / fold / "recipe.csv") for fold in FOLDS]
            chosen = [t[(t.against == "human") & (t.part == "test") & (t.scope == "pooled")] for t in recipes]
            print(row("the recipe's own mask", task.name, chosen))


if __name__ == "__main__":
    main()
