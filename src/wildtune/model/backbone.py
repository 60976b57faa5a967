"""The network: any timm model by name, with a linear head for our classes.

timm is imported where it is first needed: it takes as long as all else, and a kept network is run without it.
"""

from __future__ import annotations

import difflib
import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wildtune.errors import RecipeError


@dataclass(frozen=True)
class BackboneFacts:
    """What timm says of a backbone: mean and std on the 0-1 scale, and the side of its square input in pixels."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int


class FeatureExtractor(nn.Module):
    """The classifier without its head: (B, 3, H, W) normalised input -> (B, D) features."""

    def __init__(self, model: nn.Module) -> None:
        """Wrap a timm classifier; the weights are shared, not copied."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the pooled features that the head would get."""
        features = self.model.forward_features(images)  # type: ignore[operator]
        return self.model.forward_head(features, pre_logits=True)  # type: ignore[operator]


def check_backbone(name: str) -> None:
    """Raise RecipeError naming the nearest models when timm knows no model of this name."""
    import timm

    if timm.is_model(name.removeprefix("timm/").split(":")[-1]) or name.startswith(("hf-hub:", "local-dir:")):
        return
    known = timm.list_models()
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or [m for m in known if name[:6] in m][:3]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise RecipeError(
        f"backbone '{name}' is not a model that timm {timm.__version__} knows.{hint}\n"
        'List them with: python -c "import timm; print(*timm.list_models(), sep=chr(10))"'
    )


def create_classifier(name: str, num_classes: int, size: int | None = None, pretrained: bool = False) -> nn.Module:
    """Create timm's model with a linear head for `num_classes`, in inference mode.

    `size` is the side of the input in pixels, passed on to models that are built for one size (vision
    transformers). `pretrained` downloads timm's weights. Raises RecipeError for an unknown name or a model
    without a linear head.
    """
    check_backbone(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm warns of renamed models; the name is kept as the user gave it
        try:
            model = _create_model(name, num_classes, size, pretrained)
        except (RuntimeError, ValueError) as error:
            raise RecipeError(
                f"timm cannot make backbone '{name}': {error}\nCheck the part after the dot or before the colon."
            ) from error
    if not isinstance(head_of(model), nn.Linear):
        raise RecipeError(
            f"backbone '{name}' has a head of type {type(head_of(model)).__name__}; wildtune trains linear heads. "
            "Choose another backbone."
        )
    return model.eval()


def _create_model(name: str, num_classes: int, size: int | None, pretrained: bool) -> nn.Module:
    """Create timm's model, telling it the size of its input where it is built for one."""
    import timm

    try:
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, img_size=size)
        model.built_for_size = size  # type: ignore[assignment]
    except TypeError:  # most convolutional networks take photos of any size and know no img_size
        model = timm.create_model(name, pretrained=pretrained, num_classes=num_classes)
        model.built_for_size = None  # type: ignore[assignment]
    return model


def head_of(model: nn.Module) -> nn.Linear:
    """Return the linear head of a classifier made by `create_classifier`."""
    return model.get_classifier()  # type: ignore[operator, no-any-return]


def head_prefix(model: nn.Module) -> str:
    """Return the name of the head within the model's state dict, with a dot at the end."""
    head = head_of(model)
    return next(f"{name}." for name, module in model.named_modules() if module is head)


def state_sha256(model: nn.Module) -> str:
    """Return a SHA-256 over the names and bytes of a classifier's weights without its head."""
    return tensors_sha256(model.state_dict(), head_prefix(model))


def tensors_sha256(tensors: Mapping[str, Tensor], head: str) -> str:
    """Return the same of weights by name, leaving out those whose names begin with `head`."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        if not name.startswith(head):
            digest.update(name.encode())
            digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def reset_head(model: nn.Module, seed: int) -> None:
    """Fill the head with Glorot-uniform weights and zero biases (Glorot and Bengio 2010; Keras' default)."""
    head = head_of(model)
    generator = torch.Generator().manual_seed(seed)
    nn.init.xavier_uniform_(head.weight, generator=generator)
    if head.bias is not None:
        nn.init.zeros_(head.bias)


def read_facts(model: nn.Module, name: str) -> BackboneFacts:
    """Return timm's preprocessing facts for a model."""
    import timm

    config = timm.data.resolve_model_data_config(model)
    return BackboneFacts(name, config["mean"], config["std"], config["input_size"][-1])


def larger_size(model: nn.Module, size: int) -> int:
    """Return the multiple of 32 nearest to 9/7 of `size`, at least 16 pixels more; `size` where that cannot be.

    Random crops enlarge the animals in training, so that a network sees them at their usual size, and better, in
    larger inputs than it was trained on (Touvron et al. 2019).
    """
    larger = max(round(size * 9 / 7 / 32), -(-(size + 16) // 32)) * 32
    fixed = model.pretrained_cfg.get("fixed_input_size")  # type: ignore[union-attr, operator]
    return larger if not fixed and takes_size(model, larger) else size


def takes_size(model: nn.Module, size: int) -> bool:
    """Say whether a network works on square inputs of `size` pixels as it is built now."""
    parameter = next(model.parameters())
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, size, size, device=parameter.device, dtype=parameter.dtype))
    except Exception:  # its layers complain in many ways
        return False
    return True
