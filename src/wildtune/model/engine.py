"""What runs a network forward: OpenVINO on the CPU where it works, torch elsewhere; the same numbers from both."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from wildtune import runtime
from wildtune.photos.threads import map_in_threads

log = logging.getLogger(__name__)

# Small batches keep the working set in the processor's cache: measured fastest on two cores.
CPU_BATCH = 8
CUDA_BATCH = 128

OPENVINO_FROM_WEIGHTS = 1_000_000

# Largest difference from torch that is put down to another order of the same sums, as a share of the output's size.
TOLERANCE = 1e-3


class Engine:
    """A network ready to run in inference on batches of one fixed size.

    Fewer images than the batch are filled up with zeros and the surplus thrown away, so that what comes out for
    an image does not depend on how many others came with it.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], batch_size: int, kind: str) -> None:
        """Keep the function from a full (batch_size, 3, H, W) float32 batch to its (batch_size, D) outputs."""
        self._run = run
        self.batch_size = batch_size
        self.kind = kind

    def __call__(self, images: Tensor) -> Tensor:
        """Return the (B, D) float32 outputs of (B, 3, H, W) float32 normalised images, B being any number."""
        outputs = []
        for batch in images.split(self.batch_size):
            surplus = self.batch_size - len(batch)
            full = torch.cat([batch, batch.new_zeros(surplus, *batch.shape[1:])]) if surplus else batch
            outputs.append(self._run(full)[: len(batch)])
        return torch.cat(outputs)

    def run_all(
        self, count: int, load_input: Callable[[int], Tensor], progress: Callable[[int, int], None] | None = None
    ) -> Tensor:
        """Return the (count, D) float32 outputs of the inputs that `load_input` makes, by index.

        The next batches are made in a thread while the network works on this one; `progress` gets (done, count).
        """

        def make_batch(start: int) -> Tensor:
            return torch.stack([load_input(i) for i in range(start, min(start + self.batch_size, count))])

        outputs = []
        starts = range(0, count, self.batch_size)
        for start, batch in zip(starts, map_in_threads(make_batch, starts, 1, runtime.compute_alone), strict=True):
            outputs.append(self(batch))
            if progress:
                progress(start + len(batch), count)
        return torch.cat(outputs)


def choose_engine(module: nn.Module, device: str) -> str:
    """Return the engine for a network on a device: "openvino" for all but small ones on the CPU, else "torch".

    Taking a network over costs OpenVINO a few seconds, which small ones never earn back.
    """
    large = sum(p.numel() for p in module.parameters()) >= OPENVINO_FROM_WEIGHTS
    return "openvino" if device == "cpu" and large and importlib.util.find_spec("openvino") else "torch"


def create_engine(module: nn.Module, size: int, kind: str, threads: int, device: str = "cpu") -> Engine:
    """Make an engine of a network for square inputs of `size` pixels.

    `kind` is "openvino" or "torch". Where OpenVINO cannot take the network over, or gives other numbers than
    torch, torch runs it and a line in the log says so.
    """
    # Some attention layers keep tables computed from their weights until they are next put in training mode.
    module.train()
    module.eval()
    if device == "cuda":
        return Engine(lambda x: _run_torch(module, x.to(device)).cpu(), CUDA_BATCH, "torch")
    if kind == "openvino":
        try:
            run = _compile_openvino(module, size, threads)
            _check_parity(run, module, size)
            return Engine(run, CPU_BATCH, "openvino")
        except Exception as error:  # its failures have many types, and torch can do what it cannot
            log.warning("OpenVINO cannot run this backbone (%s): torch runs it, more slowly.", _first_line(error))
    return Engine(lambda x: _run_torch(module, x), CPU_BATCH, "torch")


def _run_torch(module: nn.Module, images: Tensor) -> Tensor:
    module.eval()  # whoever trained it in between: a random depth would be cached as the photo's features
    with torch.inference_mode():
        return module(images.contiguous(memory_format=torch.channels_last)).float()


def _compile_openvino(module: nn.Module, size: int, threads: int) -> Callable[[Tensor], Tensor]:
    import openvino

    example = torch.zeros(CPU_BATCH, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO uses a way of tracing that torch calls deprecated
        model = openvino.convert_model(module, example_input=example, input=[CPU_BATCH, 3, size, size])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        # Some processors would silently compute in bfloat16, whose answers differ from training's.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(images: Tensor) -> Tensor:
        result = request.infer({0: images.contiguous().numpy()}, share_inputs=True)
        return torch.from_numpy(np.array(result[0], dtype=np.float32))

    return run


def _check_parity(run: Callable[[Tensor], Tensor], module: nn.Module, size: int) -> None:
    """Raise ValueError unless the compiled network gives torch's numbers on random smooth images.

    Smooth ones, because white noise drives some networks so far from what photos do that torch's own float32
    rounding is then larger than the tolerance.
    """
    coarse = torch.randn(CPU_BATCH, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    expected, found = _run_torch(module, images), run(images)
    gap = float((expected - found).abs().max() / expected.abs().max().clamp_min(1e-6))
    if not gap <= TOLERANCE:
        raise ValueError(f"its outputs differ from torch's by {gap:.1e} of their size")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
