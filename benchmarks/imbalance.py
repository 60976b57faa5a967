"""What each treatment of unequal classes does: every other class keeps a few training photos, val and test stay whole.

python benchmarks/imbalance.py PHOTOS --backbone NAME --weights FILE --keep 5
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import wildtune as wt
from wildtune import files
from wildtune.recipe import Stage

METHODS = Stage.model_fields["imbalance"].annotation.__args__  # type: ignore[union-attr]


def write_uneven(source: str, recipe: wt.Recipe, keep: int, path: Path) -> None:
    """Write a CSV file of the photos with the split that the recipe gives, every other class thinned in training."""
    split = wt.split_photos(wt.audit(wt.load_photos(source)), recipe.split)
    thinned, kept = set(split.class_names[::2]), Counter[str]()
    rows = []
    for photo, side, group in zip(split.photos, split.sides, split.groups, strict=True):
        if side == "train" and photo.label in thinned:
            kept[photo.label] += 1
            if kept[photo.label] > keep:
                continue
        rows.append((str((split.root / photo.path).resolve()), photo.label, side, group))
    files.write_text(path, files.csv_text(("path", "label", "split", "group"), rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", help="class folders or another source whose photos are files")
    parser.add_argument("--backbone", default="tf_efficientnet_b0")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--keep", type=int, default=5, help="training photos left to every other class")
    asked = parser.parse_args()
    values = {"backbone": asked.backbone, "weights": asked.weights}
    with tempfile.TemporaryDirectory() as folder:
        uneven = Path(folder) / "uneven.csv"
        write_uneven(asked.photos, wt.load_recipe("quick", **values), asked.keep, uneven)
        print("imbalance          accuracy  balanced accuracy (95 % interval)  macro F1")
        for method in METHODS:
            recipe = wt.load_recipe("quick", [f"stages.0.imbalance={method}"], **values)
            score = wt.train(uneven, recipe, Path(folder) / method).evaluation.headline
            low, high = score.balanced_accuracy_interval
            print(
                f"{method:17}  {score.accuracy:8.1%}  {score.balanced_accuracy:17.1%} ({low:.1%} to {high:.1%})  "
                f"{score.macro_f1:10.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
