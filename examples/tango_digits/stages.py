"""
Three of the four stages, from scikit-learn's 1,797 handwritten digits to a program that reads them: label, train, generate.

Each is started by its member container with the folder that all share and the ids of the project, and leaves its outcome in
``common/USER/PROJECT`` of that folder, as TANGO's containers do. A file is written under another name and then renamed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np

SEED = 1998  # the year in which the images were donated; any fixed number gives a repeatable split


def written(path: Path, content: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(path)


def packed(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def labelling(project: Path) -> None:
    """Lay out the labelled images: 1,347 to learn from and 450 to judge by, each digit with the same share in both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    learn, judge, learn_labels, judge_labels = train_test_split(
        pixels, labels, test_size=0.25, random_state=SEED, stratify=labels
    )
    content = packed(learn=learn, judge=judge, learn_labels=learn_labels, judge_labels=judge_labels)
    written(project / "dataset.npz", content)
    print(f"{len(learn)} images to learn from, {len(judge)} to judge by")


def autonn(project: Path) -> None:
    """Train a linear classifier: 64 weights and a bias for each of the ten digits."""
    from sklearn.linear_model import LogisticRegression

    images = np.load(project / "dataset.npz")
    classifier: Any = LogisticRegression(C=0.1, max_iter=2_000)
    classifier.fit(images["learn"] / 16, images["learn_labels"])
    accuracy = float(classifier.score(images["judge"] / 16, images["judge_labels"]))
    written(
        project / "bestmodel.npz", packed(weights=classifier.coef_, biases=classifier.intercept_)
    )
    written(project / "accuracy.json", json.dumps({"accuracy": accuracy}).encode())
    print(f"accuracy {accuracy:.4f} on images that it has not seen")


def code_gen(project: Path) -> None:
    """Write the model as a program that needs nothing but Python, and check that it reads every image as the model does."""
    model = np.load(project / "bestmodel.npz")
    template = Path(__file__).with_name("predictor.py.txt").read_text(encoding="utf-8")
    # The classifier saw pixels from 0 to 1; the program takes them from 0 to 16, as they are.
    weights = (model["weights"] / 16).tolist()
    source = template.replace("[[WEIGHTS]]", json.dumps(weights))
    source = source.replace("[[BIASES]]", json.dumps(model["biases"].tolist()))
    target = project / "nn_model" / "predictor.py"
    written(target, source.encode())
    predict = runpy.run_path(str(target))["predict"]
    images = np.load(project / "dataset.npz")["judge"]
    said = [predict(image) for image in images.tolist()]
    wanted = np.argmax(images / 16 @ model["weights"].T + model["biases"], axis=1)
    if said != wanted.tolist():
        target.unlink()
        sys.exit("the generated program does not read as the model does")
    print(f"{target}: {len(source)} characters, reads {len(said)} images as the model does")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("stage", choices=("labelling", "autonn", "code_gen"))
    parser.add_argument("shared", type=Path)
    parser.add_argument("user_id")
    parser.add_argument("project_id")
    given = parser.parse_args()
    project = given.shared / "common" / given.user_id / given.project_id
    {"labelling": labelling, "autonn": autonn, "code_gen": code_gen}[given.stage](project)


if __name__ == "__main__":
    main()
