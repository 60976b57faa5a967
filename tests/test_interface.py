"""The frozen names: commands, options, `wildtune.__all__`, exit statuses. Changing one here is breaking a promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer.main

import wildtune
import wildtune.errors
import wildtune.job
from wildtune import cli
from wildtune.predict import predicting

HEAVY = ("torch", "torchvision", "timm", "matplotlib", "sklearn", "scipy", "numpy", "openvino")

DETECTIONS = ["--detection-threshold", "--detections"]
COMMANDS = {
    "train": (
        ["PHOTOS"],
        [
            *("--backbone", "--corrections", *DETECTIONS, "--folds", "--language", "--out"),
            *("--recipe", "--resume", "--set", "--weights"),
        ],
    ),
    "check": (["PHOTOS"], ["--backbone", *DETECTIONS, "--no-model", "--out", "--weights"]),
    "tune": (
        ["PHOTOS"],
        [
            *("--backbone", "--corrections", *DETECTIONS, "--language", "--minutes", "--out"),
            *("--recipe", "--resume", "--set", "--trials", "--weights"),
        ],
    ),
    "evaluate": (["RUN", "PHOTOS"], [*DETECTIONS, "--language"]),
    "compare": (["RUN RUN..."], ["--out"]),
    "predict": (["RUN", "PHOTOS"], ["--coverage", *DETECTIONS, "--out", "--precision", "--to"]),
    "recipes": (["NAME"], []),
    "demo": ([], ["--language", "--out"]),
}

PYTHON_NAMES = [
    "Bundle",
    "Catalogue",
    "Detections",
    "Evaluation",
    "Findings",
    "Photo",
    "Plan",
    "Predictions",
    "Recipe",
    "Split",
    "__version__",
    "audit",
    "check",
    "compare",
    "compare_runs",
    "evaluate",
    "load_bundle",
    "load_photos",
    "load_recipe",
    "predict",
    "report_again",
    "resume",
    "resume_folds",
    "resume_tuning",
    "split_photos",
    "train",
    "train_folds",
    "tune",
    "write_report",
]


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """Run the command line in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["wildtune", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


def test_commands_and_their_options_are_the_promised_ones() -> None:
    group = typer.main.get_command(cli.app)
    found = {}
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        arguments = [p.metavar or p.name.upper() for p in command.params if p.param_type_name == "argument"]
        options = sorted(o for p in command.params if p.param_type_name == "option" for o in p.opts)
        found[name] = (arguments, options)
    assert found == COMMANDS
    assert sorted(option for p in group.params for option in p.opts) == ["--debug", "--version"]


def test_python_names_are_the_promised_ones_and_all_resolve() -> None:
    assert sorted(wildtune.__all__) == PYTHON_NAMES
    assert wildtune.job.train  # once this is imported, so are the packages `train`, `predict` and `evaluate`
    hidden = [name for name in PYTHON_NAMES if isinstance(getattr(wildtune, name), ModuleType)]
    assert hidden == [], "these give a module in place of the promised function"


def test_the_version_is_the_packages() -> None:
    import importlib.metadata

    assert wildtune.__version__ == importlib.metadata.version("wildtune")


@pytest.mark.parametrize(
    ("arguments", "status"), [("--version", 0), ("no-such-command", 2), ("predict no-such-run no-such-photos", 2)]
)
def test_the_process_ends_with_its_status_even_without_an_output(arguments: str, status: int) -> None:
    command = [sys.executable, "-m", "wildtune.cli", *arguments.split()]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == status
    closed = subprocess.run(["sh", "-c", '"$0" "$@" >&-', *command], capture_output=True, text=True, timeout=60)
    assert closed.returncode == status
    assert "Traceback" not in closed.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from wildtune import cli\n"
        "sys.argv = ['wildtune', '--help']\n"
        "try:\n    cli.main()\n"
        "except SystemExit as left:\n    assert not left.code\n"
        f"print('heavy:', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_wrong_recipe_ends_with_2_and_names_every_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = ("sede=1", "stages.0.epochs=0", "input.fit=squish")
    status = run_main(monkeypatch, "train", "photos", *(part for c in changes for part in ("--set", c)))
    said = capsys.readouterr().err
    assert status == 2
    assert said.startswith("wildtune: ")
    assert "3 mistakes" in said
    assert all(found in said for found in ("sede: unknown key", "did you mean 'seed'", "stages.0.epochs", "input.fit"))
    assert "Traceback" not in said


def test_an_unknown_recipe_or_option_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "train", "photos", "--recipe", "defualt") == 2
    assert "Did you mean 'default'?" in capsys.readouterr().err
    assert run_main(monkeypatch, "train", "photos", "--epochs", "3") == 2
    assert run_main(monkeypatch, "train") == 2
    assert "Traceback" not in capsys.readouterr().err


def test_missing_photos_end_with_3_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    missing = tmp_path / "fotos"
    for command in (("check", str(missing)), ("train", str(missing), "--out", str(tmp_path / "run"))):
        assert run_main(monkeypatch, *command) == 3
        said = capsys.readouterr().err.splitlines()
        messages = [line for line in said if line.startswith("wildtune: ")]
        assert len(messages) == 1
        assert messages[0] == said[-1]
        assert f"Did you mean {tmp_path / 'photos'}?" in messages[0]
        assert not any("Traceback" in line for line in said)
    assert run_main(monkeypatch, "train", str(tmp_path / "photos"), "--out", str(tmp_path / "run")) == 3
    assert "holds no photos" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_place_where_no_file_can_be_is_said_before_anything_is_predicted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(predicting, "predict", lambda *_, **__: pytest.fail("predicted"))
    (tmp_path / "file").write_text("x", "utf-8")
    for out, message in (
        (tmp_path, "is a folder. Give the name of a file"),
        (tmp_path / "file" / "x.csv", "no folder"),
    ):
        assert run_main(monkeypatch, "predict", str(tmp_path), str(tmp_path), "--out", str(out)) == 2
        assert message in capsys.readouterr().err


def test_what_is_no_run_is_not_said_to_be_an_unfinished_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run_main(monkeypatch, "evaluate", str(tmp_path)) == 2
    assert f"{tmp_path} is no run folder" in capsys.readouterr().err
    (tmp_path / "bundle.json").write_text("{}", "utf-8")
    assert run_main(monkeypatch, "evaluate", str(tmp_path)) == 2
    assert "is a bundle, which has no scores" in capsys.readouterr().err


def test_a_run_that_its_photos_or_the_disk_stop_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()

    full, gone = OSError(28, "No space left on device", "store"), wildtune.errors.PhotosError("a photo is gone")

    def stops(error: Exception, with_plan: bool) -> None:
        def stop(*_: object, **__: object) -> None:
            (tmp_path / "run").mkdir(exist_ok=True)
            if with_plan:
                (tmp_path / "run" / "plan.toml").write_text("", "utf-8")
            raise error

        monkeypatch.setattr(wildtune.job, "train", stop)
        monkeypatch.setattr(wildtune.job, "resume", stop)

    def said(*arguments: str, status: int) -> list[str]:
        assert run_main(monkeypatch, "train", *arguments) == status
        return capsys.readouterr().err.splitlines()

    begin, go_on = (str(tmp_path / "photos"), "--out", str(tmp_path / "run")), ("--resume", str(tmp_path / "run"))
    note = f"What was finished is kept. Once that is mended, go on with: wildtune train --resume {tmp_path / 'run'}"
    stops(gone, with_plan=False)
    assert said(*begin, status=3) == ["wildtune: a photo is gone"]
    stops(gone, with_plan=True)
    assert said(*begin, status=3) == ["wildtune: a photo is gone", note]
    stops(wildtune.errors.PhotosError("the photos are gone"), with_plan=True)
    assert said(*go_on, status=3) == ["wildtune: the photos are gone"]
    stops(full, with_plan=True)
    assert said(*go_on, status=2) == ["wildtune: store: No space left on device.", note]


def test_missing_photos_are_said_before_torch_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from wildtune import cli\n"
        f"sys.argv = ['wildtune', 'train', {str(tmp_path / 'fotos')!r}]\n"
        "try:\n    cli.main()\n"
        "except SystemExit as left:\n    print(left.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["3", "False"]


@pytest.mark.parametrize("cache", ["ours", "given", "not writable"])
def test_what_torch_compiles_is_kept_among_the_caches(cache: str, tmp_path: Path) -> None:
    code = (
        "from wildtune import cli\n"
        "with cli._quick_imports():\n"
        "    import torch._dynamo\n"
        "from torch._inductor.runtime.runtime_utils import cache_dir\n"
        "print(cache_dir())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TORCHINDUCTOR_CACHE_DIR"}
    environment |= {"WILDTUNE_CACHE": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    if cache == "given":
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(tmp_path / "given")
    elif cache == "not writable":
        (tmp_path / "cache").write_text("a file")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    folder = Path(done.stdout.strip())
    if cache == "ours":
        assert folder.parent == tmp_path / "cache" / "compiled"
    else:
        assert folder.parent == tmp_path  # torch's own choice is there too
        assert (folder.name == "given") == (cache == "given")


def test_missing_weights_end_with_3(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    weights = str(tmp_path / "model.safetensors")
    status = run_main(monkeypatch, "train", str(photos), "--weights", weights, "--out", str(tmp_path / "run"))
    assert status == 3
    assert f"There is no weights file {weights}." in capsys.readouterr().err


def test_a_folder_that_is_no_run_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    for command in (
        ("train", "--resume", str(tmp_path)),
        ("evaluate", str(tmp_path)),
        ("predict", str(tmp_path), str(photos)),
    ):
        assert run_main(monkeypatch, *command) == 2
        assert "Traceback" not in capsys.readouterr().err


def test_a_demo_stays_out_of_the_users_photos(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "photos" / "lynx").mkdir(parents=True)
    assert run_main(monkeypatch, "demo", "--out", str(tmp_path)) == 2
    assert "such as lynx. Choose another --out." in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["lynx"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("CUDA out of memory. Tried to allocate 2 GiB", "the GPU is out of memory"),
        ("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", "wildtune: out of memory"),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes", "wildtune: out of memory"),
    ],
)
def test_too_little_memory_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, said: str, told: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(predicting, "predict", fail)
    assert run_main(monkeypatch, "predict", str(tmp_path), str(tmp_path)) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--to", "--precision"])
def test_predict_says_what_its_options_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, option: str
) -> None:
    assert run_main(monkeypatch, "predict", str(tmp_path), str(tmp_path), option, "json") == 2
    assert f"{option} must be" in capsys.readouterr().err


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["wildtune", "--debug", "check", str(tmp_path / "none")])
    with pytest.raises(wildtune.errors.PhotosError):
        cli.main()


def test_a_threshold_without_detections_ends_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    run, threshold = str(tmp_path / "run"), ("--detection-threshold", "0.2")
    for command in (
        ("train", str(photos), "--out", run),
        ("check", str(photos)),
        ("evaluate", run),
        ("evaluate", run, str(photos)),
        ("predict", run, str(photos)),
    ):
        assert run_main(monkeypatch, *command, *threshold) == 2, command
        said = capsys.readouterr().err
        assert "give its results too, --detections FILE" in said, command
        assert "reading" not in said
    assert run_main(monkeypatch, "train", "--resume", run, *threshold) == 2
    assert "--resume goes on with the run's own recipe, threshold and language" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_unknown_language_ends_with_2_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], photos: Path, tmp_path: Path
) -> None:
    run = str(tmp_path / "run")
    for command in (
        ("train", str(photos), "--out", run),
        ("train", str(photos), "--folds", "2", "--out", run),
        ("tune", str(photos), "--out", f"{run}.toml"),
        ("demo", "--out", run),
    ):
        assert run_main(monkeypatch, *command, "--language", "klingon") == 2, command
        said = capsys.readouterr().err
        assert "There is no language 'klingon'. --language can be en (English), ru (Russian)." in said, command
    assert list(tmp_path.iterdir()) == []
    assert run_main(monkeypatch, "train", "--resume", run, "--language", "ru") == 2
    assert run_main(monkeypatch, "evaluate", run, str(photos), "--language", "ru") == 2
    assert "leave PHOTOS out" in capsys.readouterr().err
