"""The checks on the whole set in their order, for `wildtune check` and for the start of a training."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, replace

import numpy as np
from torch import Tensor

from wildtune import runtime
from wildtune.check.confounds import confound_findings, find_giveaways
from wildtune.check.groups import create_groups, number_groups
from wildtune.check.label_suspects import LabelRanking, describe_ranking, rank_labels, suspect_findings
from wildtune.check.marks import create_marks
from wildtune.check.random_split import RandomSplit, known_answers, measure_random_split
from wildtune.errors import WeightsError
from wildtune.memo import remember
from wildtune.model.backbone import check_backbone, read_facts
from wildtune.model.engine import choose_engine
from wildtune.model.features import PLAIN_VIEW, FeatureCache
from wildtune.model.preprocess import create_input, decode_stored, given_size, resolve_preprocess
from wildtune.model.weights import create_pretrained
from wildtune.photos.audit import KINDS, Finding, Findings, audit
from wildtune.photos.catalogue import Catalogue, Photo
from wildtune.photos.decode import quiet_warnings
from wildtune.photos.store import read_unchanged
from wildtune.progress import ProgressCallback, Reporter
from wildtune.recipe import Recipe
from wildtune.wording import counted

# Another number looks for confounds anew; raise it when the same files would be judged differently.
_VERSION = 3

RANDOM_WEIGHTS = "random weights know nothing about photos; give --weights FILE"


def audit_set(catalogue: Catalogue, seed: int, reporter: Reporter) -> Findings:
    """Check the photos one by one, then what their files give away together."""
    findings = audit_photos(catalogue, reporter)
    return add_findings(findings, find_confounds(findings, seed))


def audit_photos(catalogue: Catalogue, reporter: Reporter) -> Findings:
    """Check the photos one by one, and say what was found."""
    with reporter.bar("checking the photos") as tell:
        findings = audit(catalogue, tell)
    kinds: dict[str, int] = {}
    for finding in findings.findings:
        kinds[finding.kind] = kinds.get(finding.kind, 0) + 1
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no faults"
    reporter.say(f"{counted(len(catalogue.photos), 'photo')}, {len(findings.usable):,} usable; findings: {found}")
    return findings


def add_findings(findings: Findings, more: Iterable[Finding]) -> Findings:
    """Return the findings with more of them, ordered by kind; within a kind those there come first, then as given."""
    every = sorted((*findings.findings, *more), key=lambda finding: KINDS.index(finding.kind))
    return replace(findings, findings=tuple(every))


def find_confounds(findings: Findings, seed: int = 0) -> tuple[Finding, ...]:
    """Return a finding for each mark of the usable photos' files that gives classes away; see `check.confounds`."""
    photos = [photo for photo in findings.usable if photo.label]
    groups, labels = create_groups(findings, photos), [photo.label for photo in photos]

    marks = [create_marks(photo, findings.facts[photo.path]) for photo in photos]

    def find() -> list[dict[str, str]]:
        return [asdict(f) for f in confound_findings(find_giveaways(marks, labels, groups, seed), len(set(labels)))]

    said = [[label, *map(str, astuple(mark))] for label, mark in zip(labels, marks, strict=True)]
    question = {"photos": said, "groups": number_groups(groups).tolist(), "seed": seed}
    return tuple(Finding(**row) for row in remember(f"confounds-{_VERSION}", question, find))


@dataclass(frozen=True)
class Judgement:
    """What heads on features of a backbone say of photos.

    ranking       every photo by how likely its label is wrong; None where labels could not be judged
    random_split  what a split at random would make of the accuracy; None where no photos belong together
    said          a sentence about the ranking
    """

    ranking: LabelRanking | None
    random_split: RandomSplit | None
    said: str


def judge_photos(findings: Findings, recipe: Recipe, progress: ProgressCallback | None = None) -> Judgement:
    """Rank the labels of all usable photos and try a split at random, on features of the recipe's pretrained backbone.

    Raises RecipeError and WeightsError as training with that recipe would. With random weights nothing is judged.
    """
    if recipe.weights == "none":
        return Judgement(None, None, f"label errors were not looked for: {RANDOM_WEIGHTS}")
    photos = [photo for photo in findings.usable if photo.label]
    if not photos:
        return Judgement(None, None, "label errors were not looked for: no usable photo has a label")
    features = extract_features(findings.catalogue, photos, recipe, progress)
    groups = create_groups(findings, photos)
    ranking = rank_labels(photos, features, groups, recipe.seed)
    random_split = measure_random_split(photos, features, groups, recipe.seed, known_answers(ranking))
    return Judgement(ranking if ranking.rows else None, random_split, describe_ranking(ranking))


def try_to_judge(findings: Findings, recipe: Recipe | None, reporter: Reporter) -> Judgement:
    """Return what heads on features say of all usable photos, or why they cannot."""
    if recipe is None:
        return Judgement(None, None, "label errors were not looked for: that needs pretrained weights")
    try:
        with reporter.bar("features of the photos") as tell:
            return judge_photos(findings, recipe, tell)
    except WeightsError:
        if recipe.weights != "auto":
            raise
        return Judgement(
            None,
            None,
            f"label errors were not looked for: the weights of '{recipe.backbone}' could not be downloaded. Give a "
            "file: --weights FILE --backbone NAME, or --no-model to do without",
        )


def extract_features(
    catalogue: Catalogue, photos: Sequence[Photo], recipe: Recipe, progress: ProgressCallback | None = None
) -> np.ndarray:
    """Return the (N, D) float32 features of photos without augmentation, by the recipe's pretrained backbone.

    They are cached like those of a training. Raises RecipeError, WeightsError, PhotosError and DecodeError.
    """
    check_backbone(recipe.backbone)
    model, _ = create_pretrained(recipe.backbone, recipe.weights, 2, given_size(recipe.input), recipe.seed)
    pre = resolve_preprocess(recipe.input, model, read_facts(model, recipe.backbone))
    threads, device = runtime.compute_threads(), runtime.detect_device()
    runtime.set_threads(threads)
    versions = runtime.environment()["packages"]
    cache = FeatureCache(model, recipe.backbone, pre, choose_engine(model, device), threads, device, versions)

    def view(i: int) -> Tensor:
        return create_input(decode_stored(read_unchanged(catalogue, photos[i]), pre, photos[i].box), pre)

    with quiet_warnings():
        return np.asarray(cache.load(photos, view, PLAIN_VIEW, progress).numpy())


def add_suspects(
    findings: Findings, ranking: LabelRanking, confirmed: Collection[str] = (), of_test: bool = False
) -> Findings:
    """Return the findings with the ranking's suspects, but for photos whose label the user has confirmed."""
    return add_findings(findings, (f for f in suspect_findings(ranking, of_test) if f.path not in confirmed))
