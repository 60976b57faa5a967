"""The documentation holds: its commands run as written, its links lead somewhere, its keys are the recipe's."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from trap_files import write_trap_lists

from wildtune import cli, recipe

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
RUN = "<!-- run -->"
BACKBONE = "test_efficientnet"
_BLOCK = re.compile(rf"^{RUN}\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")

load_recipe = recipe.load_recipe
pytestmark = pytest.mark.usefixtures("blank_charts")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def load_small_recipe(name: str = "default", changes: Sequence[str] = (), **values: Any) -> recipe.Recipe:
    """Load a recipe as it was asked for, but on timm's smallest network, 48 px and one epoch a stage."""
    asked = load_recipe(name, changes, **values)
    small = ["input.size=48", "input.resize=auto"]
    for number in range(len(asked.stages)):
        small += [f"stages.{number}.epochs=1", f"stages.{number}.batch_size=8"]
    weights = asked.weights if Path(asked.weights).is_file() else "none"
    return load_recipe(name, [*changes, *small], backbone=BACKBONE, weights=weights)


def run_command(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Run one documented `wildtune` command in this process, with `> FILE` as a shell would."""
    words = shlex.split(line)
    assert words[0] == "wildtune", f"only wildtune commands can be run here: {line}"
    target = None
    if ">" in words:
        place = words.index(">")
        target, words = words[place + 1], words[:place]
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", words)
    status: object = 0
    try:
        cli.main()
    except SystemExit as left:
        status = left.code or 0
    said = capsys.readouterr()
    assert status == 0, f"{line} ended with {status}: {said.err}"
    if target:
        Path(target).write_text(said.out, encoding="utf-8")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The folder that the documentation's commands find themselves in: photos, a CSV file, weights, a finished run."""
    import timm
    from safetensors.torch import save_file

    from wildtune import job

    place = tmp_path_factory.mktemp("docs")
    for photo in sorted(photos.glob("*/*.png")):
        number = int(photo.stem)
        folder = place / ("photos" if number < 10 else "new-photos") / photo.parent.name
        if number <= 10:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder)
    shutil.copy(photos / "disc" / "11.png", place / "new-photos" / "a.png")
    (place / "new-photos" / "damaged.jpg").write_bytes(b"\xff\xd8\xff no more")
    rows = [f"photos/{path.parent.name}/{path.name},{path.parent.name}," for path in place.glob("photos/*/*.png")]
    (place / "photos.csv").write_text("\n".join(["path,label,group", *sorted(rows)]) + "\n", encoding="utf-8")
    write_trap_lists(place, sorted(path.relative_to(place).as_posix() for path in place.glob("photos/*/*.png")))
    save_file(timm.create_model(BACKBONE, num_classes=3).state_dict(), place / "model.safetensors")
    job.train(place / "photos", load_small_recipe(weights=str(place / "model.safetensors")), place / "runs" / "first")
    (place / "predictions.csv").write_bytes((place / "runs/first/predictions/test.csv").read_bytes())
    return place


def runnable(page: Path) -> list[tuple[str, str]]:
    return _BLOCK.findall(page.read_text("utf-8"))


def pages_that_run() -> list[Path]:
    """Return the pages with something to run."""
    return [page for page in PAGES if runnable(page)]


@pytest.mark.parametrize("page", pages_that_run(), ids=name_of)
def test_what_a_page_says_to_run_runs(
    page: Path,
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "place"
    shutil.copytree(workplace, place)
    blocks = runnable(page)
    if any("train" in text and "--out runs/first" in text for _, text in blocks):
        shutil.rmtree(place / "runs")  # the page makes its own
    monkeypatch.chdir(place)
    monkeypatch.setattr(recipe, "load_recipe", load_small_recipe)
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, name_of(page), "exec"), {"__name__": "__main__"})
            continue
        assert kind == "console"
        lines = text.splitlines()
        assert lines
        assert all(line.startswith("$ ") for line in lines), f"lines of a block to run begin with '$ ': {lines}"
        for line in lines:
            run_command(line.removeprefix("$ "), monkeypatch, capsys)


def test_every_mark_stands_before_a_block() -> None:
    for page in PAGES:
        if page.name != "CONTRIBUTING.md":  # which speaks of the mark
            assert page.read_text("utf-8").count(RUN) == len(runnable(page)), name_of(page)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{name_of(page)} links to {link}"
        if anchor:
            assert anchor in anchors(found), f"{name_of(page)} links to {link}"


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link).resolve() for link in _LINK.findall(index.read_text("utf-8"))}
    for page in ROOT.glob("docs/**/*.md"):
        assert page == index or page.resolve() in linked, name_of(page)


def test_the_keys_of_the_reference_are_the_recipes() -> None:
    text = (ROOT / "docs" / "reference" / "recipe.md").read_text("utf-8")
    block = text.split("```text\n")[1].split("```")[0]
    assert block == recipe.describe_keys(), "put the output of `wildtune recipes keys` into docs/reference/recipe.md"


def test_the_reference_names_every_command_and_option() -> None:
    import typer.main

    text = (ROOT / "docs" / "reference" / "cli.md").read_text("utf-8")
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        section = text.split(f"## wildtune {name}")[1].split("\n## ")[0]
        for option in (o for p in command.params if p.param_type_name == "option" for o in p.opts):
            assert f"`{option}" in section, f"{name} {option}"


def test_the_reference_names_every_python_name() -> None:
    import wildtune

    text = (ROOT / "docs" / "reference" / "python.md").read_text("utf-8")
    assert [name for name in wildtune.__all__ if f"`wt.{name}" not in text and f"`{name}`" not in text] == []


def test_the_readme_has_the_two_commands_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    ci = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "```console\n$ pip install '.[test]'\n$ make check\n```" in readme
    assert "```console\n$ pip install .\n$ wildtune demo\n```" in readme
    assert ci.index("timed pip install '.[test]'\n") < ci.index("timed make check\n") < ci.index("timed wildtune demo")


def test_pages_name_nothing_of_one_machine() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert not re.search(r"(?<![\w.])/(tmp|home|work|root)/", text), name_of(page)
