"""How many photos of animals that a classifier never learned are called unknown, and by which score best.

Every fifth class is held out of training, in turn; each score's threshold lets 95 % of the validation photos pass.

python benchmarks/unknown.py PHOTOS --backbone NAME --weights FILE
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

import wildtune as wt
from wildtune import files
from wildtune.predict.predictions import Predictions

ROUNDS = 5


def scores(predictions: Predictions) -> dict[str, np.ndarray]:
    """Return scores that are low where a photo shows no class, each (N,), for photos that could be read."""
    read = predictions.predicted >= 0
    logits = predictions.logits[read].astype(np.float64)
    return {
        "energy": np.logaddexp.reduce(logits, axis=1),
        "largest logit": logits.max(axis=1),
        "confidence": predictions.confidence[read],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="class folders")
    parser.add_argument("--backbone", default="tf_efficientnet_b0")
    parser.add_argument("--weights", default="auto")
    asked = parser.parse_args()
    recipe = wt.load_recipe("quick", backbone=asked.backbone, weights=asked.weights)
    split = wt.split_photos(wt.audit(wt.load_photos(asked.photos)), recipe.split)
    rows = [
        (str((split.root / photo.path).resolve()), photo.label, side, group)
        for photo, side, group in zip(split.photos, split.sides, split.groups, strict=True)
    ]
    found: dict[str, list[tuple[float, float, float]]] = {}
    caught, review = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            held_out = set(split.class_names[number::ROUNDS])
            lists = {}
            for name, kept in (
                ("known", [row for row in rows if row[1] not in held_out]),
                ("val", [row for row in rows if row[1] not in held_out and row[2] == "val"]),
                ("test", [row for row in rows if row[1] not in held_out and row[2] == "test"]),
                ("held", [row for row in rows if row[1] in held_out]),
            ):
                lists[name] = Path(folder) / f"{name}-{number}.csv"
                files.write_text(lists[name], files.csv_text(("path", "label", "split", "group"), kept))
            run = wt.train(lists["known"], recipe, Path(folder) / f"run-{number}").folder
            said = {name: wt.predict(run, lists[name]) for name in ("val", "test", "held")}
            caught.append((said["test"].unknown.mean(), said["held"].unknown.mean()))
            review.append(tuple((said[name].review | said[name].unknown).mean() for name in ("test", "held")))
            val, test, held = (scores(said[name]) for name in ("val", "test", "held"))
            for name in val:
                least = np.quantile(val[name], 0.05)
                area = roc_auc_score(
                    np.r_[np.ones(len(test[name])), np.zeros(len(held[name]))], np.r_[test[name], held[name]]
                )
                entry = ((test[name] < least).mean(), (held[name] < least).mean(), area)
                found.setdefault(name, []).append(entry)
    print(f"{'score':14}  known flagged  unknown caught  area under ROC")
    for name, values in found.items():
        known, unknown, area = np.mean(values, axis=0)
        print(f"{name:14}  {known:13.1%}  {unknown:14.1%}  {area:14.3f}")
    for name, pairs in (("unknown = yes", caught), ("either = yes", review)):
        known, unknown = np.mean(pairs, axis=0)
        print(f"column {name}: {known:.1%} of the test photos of known classes, {unknown:.1%} of the held-out classes")


if __name__ == "__main__":
    main()
