"""The page's heat maps: which photos, which colours, and what the page says of them."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shapes import small_recipe
from wildtune import runtime
from wildtune.model.backbone import create_classifier
from wildtune.model.bundle import Bundle
from wildtune.model.preprocess import create_preprocess
from wildtune.photos.sources import load_photos
from wildtune.predict.predictions import Predictions
from wildtune.report import RunContent, write_report
from wildtune.report.heat_maps import MOST_RIGHT, MOST_WRONG, HeatMap, create_heat_maps, lay_over


@pytest.fixture(scope="module")
def explained(photos: Path) -> tuple[tuple[HeatMap, ...], list[tuple[int, int]]]:
    catalogue = load_photos(photos)
    model = create_classifier("test_efficientnet", 3)
    pre = create_preprocess(small_recipe().input, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 48)
    bundle = Bundle("test_efficientnet", catalogue.class_names, pre, model=model)
    # Every second answer is right, whatever an untrained network says.
    labels, rows = tuple(photo.label for photo in catalogue.photos), np.arange(len(catalogue.photos))
    targets = np.array([catalogue.class_names.index(label) for label in labels])
    logits = np.zeros((len(rows), 3), dtype=np.float32)
    logits[rows, (targets + rows % 2) % 3] = 1 + rows / len(rows)
    paths = tuple(photo.path for photo in catalogue.photos)
    predictions = Predictions(paths, labels, ("",) * len(rows), logits, catalogue.class_names)
    told: list[tuple[int, int]] = []
    by_path = {photo.path: photo for photo in catalogue.photos}
    by_path.pop(predictions.paths[-1])  # the surest mistake is no longer there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "compute_threads", lambda: 4)
        made = create_heat_maps(bundle, catalogue, by_path, predictions, lambda done, total: told.append((done, total)))
        patch.setattr(runtime, "compute_threads", lambda: 1)
        assert create_heat_maps(bundle, catalogue, by_path, predictions) == made
    return made, told


def test_a_bounded_number_of_wrong_and_right_answers_is_explained(
    explained: tuple[tuple[HeatMap, ...], list[tuple[int, int]]],
) -> None:
    made, told = explained
    wrong, right = ([m for m in made if (m.label == m.prediction) == same] for same in (False, True))
    assert (len(wrong), len(right)) == (MOST_WRONG - 1, MOST_RIGHT)
    assert [m.confidence for m in wrong] == sorted((m.confidence for m in wrong), reverse=True)
    assert [m.confidence for m in right] == sorted(m.confidence for m in right)
    assert right[0].confidence == pytest.approx(np.e / (np.e + 2))  # the least sure of all
    assert told[-1] == (len(made), len(made))


def test_a_wrong_answer_has_the_labels_map_too(
    explained: tuple[tuple[HeatMap, ...], list[tuple[int, int]]],
) -> None:
    for shown in explained[0]:
        assert (shown.for_label is None) == (shown.label == shown.prediction)
        pictures = [shown.photo, shown.for_prediction, *([shown.for_label] if shown.for_label else [])]
        assert len({Image.open(io.BytesIO(data)).size for data in pictures}) == 1
        assert max(map(len, pictures)) < 40_000


def test_what_speaks_for_the_class_is_yellow_and_all_else_dark() -> None:
    values = np.array([[2.0, -2.0], [0.0, -1.0]], dtype=np.float32)
    laid = np.asarray(lay_over(Image.new("RGB", (64, 64), (128, 128, 128)), values, 2.0)).astype(int)
    red, _, blue = laid[4, 4]
    assert red > blue + 80
    assert np.array_equal(laid[4, 60], laid[60, 4])  # against the class as if nothing were there
    assert laid[4, 60].sum() < laid[4, 4].sum() - 150
    nothing = np.asarray(lay_over(Image.new("RGB", (8, 8)), np.full((2, 2), -1, np.float32), -1.0))
    assert len(np.unique(nothing.reshape(-1, 3), axis=0)) == 1


def test_the_page_shows_them_with_words_and_only_where_there_are_some(
    build: Callable[..., RunContent], explained: tuple[tuple[HeatMap, ...], list[tuple[int, int]]], tmp_path: Path
) -> None:
    shown = next(m for m in explained[0] if m.for_label)
    named = dataclasses.replace(shown, label="<b>&")
    text = write_report(build(heat_maps=(named,)), tmp_path / "with").read_text("utf-8")
    assert 'id="heat-maps"' in text
    assert "what spoke for &lt;b&gt;&amp;" in text
    assert "they do not prove" in text
    assert "Right answers, from" not in text
    assert 'id="heat-maps"' not in write_report(build(), tmp_path / "without").read_text("utf-8")
