"""
Handwritten digits, from the 1,797 images that scikit-learn carries: one program, a verb for each stage of the project.

``split`` lays the images aside, ``train`` fits one classifier of the grid, ``choose`` keeps the best by cross-validation,
``report`` tries it on the images that no training saw. Each output is written under another name and then renamed, so a run
that is repeated, or killed half-way, leaves nothing broken.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

SEED = 1998  # the year in which the images were donated; any fixed number gives a repeatable split
FOLDS = 5


def written(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def progress(fraction: float, message: str) -> None:
    """Tell the engine how far it is."""
    print(f"::progress {fraction:.2f} {message}", flush=True)


def split(shared: Path) -> None:
    """1,347 images to learn from and 450 to judge by, each digit with the same share in both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    learn, judge, learn_labels, judge_labels = train_test_split(
        pixels, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    content = io.BytesIO()
    np.savez_compressed(
        content, learn=learn, judge=judge, learn_labels=learn_labels, judge_labels=judge_labels
    )
    written(shared / "split.npz", content.getvalue())
    print(f"{len(learn)} images to learn from, {len(judge)} to judge by")


def train(shared: Path, c: float, gamma: float) -> None:
    """How many of the images to learn from one classifier recognises when it has not seen them."""
    from sklearn.model_selection import StratifiedKFold

    images = np.load(shared / "split.npz")
    learn, labels = images["learn"], images["learn_labels"]
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    correct: list[int] = []
    for number, (fitted, held_out) in enumerate(folds.split(learn, labels), start=1):
        classifier = classifier_of(c, gamma).fit(learn[fitted], labels[fitted])
        correct.append(int(np.sum(classifier.predict(learn[held_out]) == labels[held_out])))
        progress(number / FOLDS, f"fold {number} of {FOLDS}: {correct[-1]} of {len(held_out)}")
    found = {"C": c, "gamma": gamma, "correct": sum(correct), "of": len(learn), "folds": correct}
    written(shared / "trained" / f"C{c:g}-gamma{gamma:g}.json", json.dumps(found).encode())
    print(f"C={c:g} gamma={gamma:g}: {found['correct']} of {found['of']} correct")


def classifier_of(c: float, gamma: Any) -> Any:
    from sklearn.svm import SVC

    return SVC(C=c, gamma=gamma, kernel="rbf")


def choose(shared: Path) -> None:
    """The most accurate of the grid; among equals the simplest (smallest C, then smallest gamma)."""
    found = [json.loads(path.read_bytes()) for path in (shared / "trained").glob("C*.json")]
    if not found:
        sys.exit("nothing was trained")
    found.sort(key=lambda one: (-one["correct"], one["C"], one["gamma"]))
    written(shared / "best.json", json.dumps({"best": found[0], "all": found}, indent=1).encode())
    print(f"best of {len(found)}: C={found[0]['C']:g} gamma={found[0]['gamma']:g}")


def report(shared: Path) -> None:
    """Judge the best by the images that it never saw; write report.md, confusion.png and result.json."""
    from sklearn.metrics import confusion_matrix

    chosen = json.loads((shared / "best.json").read_bytes())
    best = chosen["best"]
    images = np.load(shared / "split.npz")
    classifier = classifier_of(best["C"], best["gamma"])
    classifier.fit(images["learn"], images["learn_labels"])
    progress(0.3, "judging")
    truth = images["judge_labels"]
    said = classifier.predict(images["judge"])
    accuracy = float(np.mean(said == truth))
    matrix = confusion_matrix(truth, said)
    progress(0.5, "drawing")
    written(shared / "confusion.png", picture(matrix, images["judge"], truth, said, accuracy))
    result = {
        "C": best["C"],
        "gamma": best["gamma"],
        "accuracy": accuracy,
        "mistakes": int(np.sum(said != truth)),
        "judged": len(truth),
    }
    written(shared / "result.json", json.dumps(result, indent=1).encode())
    written(shared / "report.md", page(result, chosen["all"]).encode())
    progress(1, "done")
    print(f"accuracy {accuracy:.4f}: {shared / 'report.md'}")


def page(result: dict[str, Any], grid: list[dict[str, Any]]) -> str:
    rows = "\n".join(
        f"| {one['C']:g} | {one['gamma']:g} | {one['correct']} of {one['of']} | {one['correct'] / one['of']:.4f} |"
        for one in grid
    )
    return f"""# Handwritten digits

The best of {len(grid)} classifiers (C = {result["C"]:g}, gamma = {result["gamma"]:g}) recognises
**{result["accuracy"]:.2%}** of {result["judged"]} images that no training saw: {result["mistakes"]} mistakes.

![which digit was taken for which](confusion.png)

| C | gamma | recognised in {FOLDS}-fold cross-validation | accuracy |
|---|---|---|---|
{rows}
"""


def picture(matrix: Any, images: Any, truth: Any, said: Any, accuracy: float) -> bytes:
    """The confusion matrix, and beside it the images that were mistaken."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.colors import LogNorm

    figure = plt.figure(figsize=(11, 6), layout="constrained")
    halves: Any = figure.subfigures(1, 2, width_ratios=(3, 2))
    left, right = halves
    axes = left.subplots()
    axes.imshow(np.maximum(matrix, 0.5), cmap="GnBu", norm=LogNorm(0.5, matrix.max()))
    for row, column in np.ndindex(matrix.shape):
        if matrix[row, column]:
            ink = "white" if matrix[row, column] > matrix.max() / 8 else "black"
            axes.text(column, row, matrix[row, column], ha="center", va="center", color=ink)
    axes.set(xticks=range(10), yticks=range(10), xlabel="recognised as", ylabel="written")
    axes.set_title(f"{accuracy:.2%} of {matrix.sum()} unseen digits recognised")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    wrong = np.flatnonzero(truth != said)[:12]
    rows = max(2, -(-len(wrong) // 3))
    right.suptitle("the mistakes" if len(wrong) else "no mistakes")
    for cell, index in zip(right.subplots(rows, 3).flat, wrong, strict=False):
        cell.imshow(images[index].reshape(8, 8), cmap="gray_r", interpolation="bilinear")
        cell.set_title(f"{truth[index]}, taken for {said[index]}", fontsize=9)
    for cell in right.axes:
        cell.axis("off")
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110, metadata={"Software": None})
    return content.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("split", "train", "choose", "report"):
        verbs.add_parser(verb).add_argument("shared", type=Path)
    verbs.choices["train"].add_argument("--c", type=float, required=True)
    verbs.choices["train"].add_argument("--gamma", type=float, required=True)
    arguments = vars(parser.parse_args())
    {"split": split, "train": train, "choose": choose, "report": report}[arguments.pop("verb")](
        **arguments
    )


if __name__ == "__main__":
    main()
