from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shapes import BACKBONE
from wildtune.errors import RecipeError, WeightsError
from wildtune.model.backbone import create_classifier, head_of, read_facts, reset_head
from wildtune.model.weights import create_pretrained


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    path = tmp_path_factory.mktemp("weights") / "trunk.safetensors"
    save_file(create_classifier(BACKBONE, 7).state_dict(), path)
    return path


def backbone_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if not k.startswith("classifier")}


def test_safetensors_and_pth_give_the_same_backbone_and_drop_the_head(weights_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(weights_file)
    nested = tmp_path / "nested.pth"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, nested)
    for path in (weights_file, nested):
        model, facts = create_pretrained(BACKBONE, str(path), 3, None)
        assert head_of(model).out_features == 3
        assert all(torch.equal(state[k], v) for k, v in backbone_state(model).items())
        assert facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert any("head for 7 other classes was dropped" in note for note in facts.notes)


def test_a_trunk_without_a_head_is_fine(weights_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = {k: v for k, v in load_file(weights_file).items() if not k.startswith("classifier")}
    save_file(state, tmp_path / "trunk.safetensors")
    _, facts = create_pretrained(BACKBONE, str(tmp_path / "trunk.safetensors"), 3, None)
    assert facts.notes == ()


def test_half_precision_is_read_as_float32(weights_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    save_file({k: v.half() if v.is_floating_point() else v for k, v in load_file(weights_file).items()}, tmp_path / "h")
    model, _ = create_pretrained(BACKBONE, str(tmp_path / "h"), 3, None)
    assert all(v.dtype == torch.float32 for v in model.parameters())


def test_a_missing_tensor_is_named(weights_file: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(weights_file)
    del state["conv_stem.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(WeightsError, match=r"conv_stem\.weight"):
        create_pretrained(BACKBONE, str(tmp_path / "part.safetensors"), 3, None)


def test_another_backbones_file_is_refused(weights_file: Path) -> None:
    with pytest.raises(WeightsError, match="does not fit backbone 'test_resnet'"):
        create_pretrained("test_resnet", str(weights_file), 3, None)


def test_a_file_of_the_twin_backbone_is_warned_of(tmp_path: Path) -> None:
    path = tmp_path / "efficientnet_b0_mine.pth"
    torch.save(create_classifier("efficientnet_b0", 3).state_dict(), path)
    _, facts = create_pretrained("tf_efficientnet_b0", str(path), 3, None)
    assert any("WARNING" in note and "--backbone efficientnet_b0" in note for note in facts.notes)
    _, facts = create_pretrained("efficientnet_b0", str(path), 3, None)
    assert not any("WARNING" in note for note in facts.notes)


def test_a_pickled_model_is_refused_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "whole.pth"
    torch.save(create_classifier(BACKBONE, 3), path)
    with pytest.raises(WeightsError, match="state_dict"):
        create_pretrained(BACKBONE, str(path), 3, None)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x89HDF\r\n\x1a\n cut short"])
def test_a_damaged_file_is_a_weights_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken"
    path.write_bytes(content)
    with pytest.raises(WeightsError):
        create_pretrained("tf_efficientnet_b0", str(path), 3, None)


@pytest.mark.parametrize("kept", [0, 3000, -1, None])
def test_a_safetensors_file_that_is_cut_short_is_said_to_be(
    weights_file: Path, tmp_path: Path, kept: int | None
) -> None:
    cut, pointer = tmp_path / "cut.safetensors", b"version of the file that is kept elsewhere\n" * 5
    cut.write_bytes(pointer if kept is None else weights_file.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"cut\.safetensors is damaged"):
        create_pretrained(BACKBONE, str(cut), 3, None)


def test_values_that_are_no_numbers_are_refused(weights_file: Path, tmp_path: Path) -> None:
    state = load_file(weights_file)
    state["conv_stem.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(WeightsError, match=r"conv_stem\.weight holds values that are no finite numbers"):
        create_pretrained(BACKBONE, str(tmp_path / "nan.safetensors"), 3, None)


def test_a_missing_file_is_a_weights_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights file"):
        create_pretrained(BACKBONE, str(tmp_path / "none.pth"), 3, None)


def test_offline_the_message_says_which_file_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    real = timm.create_model

    def offline(name: str, pretrained: bool = False, **options: object) -> torch.nn.Module:
        if pretrained:
            raise OSError("no network")
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(WeightsError, match="--weights") as caught:
        create_pretrained("tf_efficientnet_b0", "auto", 3, None)
    assert "model.safetensors" in str(caught.value)


def test_random_weights_follow_the_seed() -> None:
    first, again, other = (create_pretrained(BACKBONE, "none", 3, None, seed)[0] for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("name", ["efficientnet_b00", "mobilnetv2_100", "nothing_like_it", "efficientnet_b0.nope"])
def test_an_unknown_backbone_is_a_recipe_error(name: str) -> None:
    with pytest.raises(RecipeError):
        create_classifier(name, 3)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_vit", "test_resnet", "test_convnext", "test_byobnet"])
def test_features_and_head_make_the_classifier(name: str) -> None:
    from wildtune.model.backbone import FeatureExtractor

    model = create_classifier(name, 3)
    reset_head(model, 0)
    images = torch.randn(2, 3, read_facts(model, name).size, read_facts(model, name).size)
    with torch.no_grad():
        features = FeatureExtractor(model)(images)
        torch.testing.assert_close(head_of(model)(features), model(images), rtol=1e-4, atol=1e-5)
