"""What runs a network forward: OpenVINO on the CPU where it works, torch elsewhere; the same numbers from both.

In bfloat16, where it is asked for, they are those of float32 but for its rounding.
"""

from __future__ import annotations

import copy
import importlib.util
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wildtune import runtime
from wildtune.model.saved_networks import find_network, forget_network, keep_network
from wildtune.photos.threads import map_in_threads
from wildtune.progress import ProgressCallback
from wildtune.runtime import Precision

log = logging.getLogger(__name__)

# Photos that torch runs at once; small batches keep the working set in a processor's cache.
CPU_BATCH = 8
CUDA_BATCH = 128

OPENVINO_FROM_WEIGHTS = 1_000_000

# Inputs that a thread makes before the network runs on them: code and tables of both then stay in a core's caches.
_IN_A_ROW = 8

# Largest difference that is put down to rounding, as a share of the size of a photo's outputs: in float32 from torch,
# whose sums have another order; in bfloat16, which has 8 binary digits, from float32 (ten backbones: 0.003 to 0.11).
TOLERANCES: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 0.2}


class Engine:
    """A network ready to run in inference on batches of one fixed size.

    Fewer images than the batch are filled up with zeros and the surplus thrown away, so that what comes out for
    an image does not depend on how many others came with it.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], batch_size: int, kind: str, workers: int = 1) -> None:
        """Keep the function from a full (batch_size, 3, H, W) float32 batch to its (batch_size, D) outputs.

        `workers` threads make the inputs; with a batch of one photo each of them also calls `run`, all at once.
        """
        self._run = run
        self.batch_size = batch_size
        self.kind = kind
        self._workers = workers

    def __call__(self, images: Tensor) -> Tensor:
        """Return the (B, D) float32 outputs of (B, 3, H, W) float32 normalised images, B being any number."""
        outputs = []
        for batch in images.split(self.batch_size):
            surplus = self.batch_size - len(batch)
            full = torch.cat([batch, batch.new_zeros(surplus, *batch.shape[1:])]) if surplus else batch
            outputs.append(self._run(full)[: len(batch)])
        return torch.cat(outputs)

    def stream(
        self, count: int, load_input: Callable[[int], Tensor | None], progress: ProgressCallback | None = None
    ) -> Iterator[tuple[list[int], Tensor]]:
        """Yield (indices, (B, D) float32 outputs) of the inputs that `load_input` makes by index, in their order.

        An index for which it returns None is left out. Inputs are made in threads while the network works, only a
        few of them ahead of it; `progress` gets (done, count).
        """
        alone = self.batch_size == 1
        # In short rows where few photos would else leave some workers without any at the end.
        length = max(1, min(_IN_A_ROW, count // (8 * self._workers))) if alone else 1
        rows = [range(start, min(start + length, count)) for start in range(0, count, length)]

        def make(indices: range) -> list[Tensor | None]:
            images = [load_input(index) for index in indices]
            return [image if image is None or not alone else self(image[None]) for image in images]

        waiting: list[tuple[int, Tensor]] = []
        # Where the workers compute, whoever takes the outputs computes beside them.
        with runtime.computing_alone() if alone else nullcontext():
            made = map_in_threads(make, rows, self._workers, runtime.compute_alone)
            for index, result in enumerate(chain.from_iterable(made)):
                if result is not None:
                    waiting.append((index, result))
                if waiting and (len(waiting) == self.batch_size or index + 1 == count):
                    some = [tensor for _, tensor in waiting]
                    yield [i for i, _ in waiting], some[0] if alone else self(torch.stack(some))
                    waiting.clear()
                if progress:
                    progress(index + 1, count)

    def run_all(
        self, count: int, load_input: Callable[[int], Tensor], progress: ProgressCallback | None = None
    ) -> Tensor:
        """Return the (count, D) float32 outputs of the inputs that `load_input` makes, by index; see `stream`."""
        # One block from the start: small results kept one by one would pin the memory of the images around them.
        collected = torch.empty(0)
        for rows, outputs in self.stream(count, load_input, progress):
            if not len(collected):
                collected = torch.empty(count, outputs.shape[1])
            collected[rows] = outputs
        return collected


def choose_engine(module: nn.Module, device: str) -> str:
    """Return the engine for a network on a device: "openvino" for all but small ones on the CPU, else "torch".

    Taking a network over costs OpenVINO a few seconds, which small ones never earn back.
    """
    large = sum(p.numel() for p in module.parameters()) >= OPENVINO_FROM_WEIGHTS
    return "openvino" if device == "cpu" and large and has_openvino() else "torch"


def has_openvino() -> bool:
    """Say whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def create_engine(
    module: nn.Module,
    size: int,
    kind: str,
    threads: int,
    device: str = "cpu",
    identity: str = "",
    precision: Precision = "float32",
) -> Engine:
    """Make an engine of a network for square inputs of `size` pixels.

    `kind` is "openvino" or "torch". Where OpenVINO cannot take the network over, or gives other numbers than
    torch, torch runs it and a line in the log says so. With an `identity`, which tells the network from all others,
    one that OpenVINO took over before is found again. `precision` is that of OpenVINO's arithmetic; torch's is float32.
    """
    _settle(module)
    if device == "cuda":
        return Engine(lambda x: _run_torch(module, x.to(device)).cpu(), CUDA_BATCH, "torch", threads)
    if kind == "openvino":
        found = find_engine(identity, size, threads, precision)
        if found is not None:
            return found
        try:
            network = _take_over(module, size)
            engine = _create_openvino(network, threads)
            _check_parity(engine, lambda x: _run_torch(module, x), size)
            if identity:
                keep_network(network, identity, size)
            return _in_precision(precision, network, engine, size, threads)
        except Exception as error:  # its failures have many types, and torch can do what it cannot
            log.warning("OpenVINO cannot run this backbone (%s): torch runs it, more slowly.", _first_line(error))
    return Engine(lambda x: _run_torch(module, x), CPU_BATCH, "torch")


def network_identity(backbone: str, sha256: str) -> str:
    """Return what tells a backbone with its weights, of that `state_sha256`, from all others."""
    return f"{backbone} {sha256}"


def find_engine(identity: str, size: int, threads: int, precision: Precision = "float32") -> Engine | None:
    """Return the engine of a network that OpenVINO took over before, without the network; None where it is not kept."""
    path = find_network(identity, size) if identity else None
    if path is None:
        return None
    try:
        engine = _create_openvino(path, threads)
        return _in_precision(precision, path, engine, size, threads)
    except Exception as error:  # its failures have many types
        if not isinstance(error, MemoryError) and "alloc" not in str(error):  # else it is not the network's fault
            forget_network(identity, size)
        return None


class TrainingEngine:
    """A network in training, run forward with the weights that it has by then.

    OpenVINO takes over a copy whose tensors it reads where they are: new weights are written into the copy, and
    compiling and checking it again takes a second where taking it over takes some five. Where it does not read all of
    them in place (as of tables that were computed from weights), or cannot run the network, torch does.
    """

    def __init__(self, model: nn.Module, size: int, kind: str, threads: int, device: str = "cpu") -> None:
        """Keep what `create_engine` takes, and for OpenVINO a copy; nothing is taken over yet."""
        self._model, self._size, self._threads, self._device = model, size, threads, device
        self._copy: nn.Module | None = None
        self._network: Any = None
        if kind == "openvino" and device == "cpu":
            with suppress(RuntimeError):  # a tensor that is part of a graph cannot be copied
                self._copy = copy.deepcopy(model).requires_grad_(False)

    def now(self) -> Engine:
        """Return the engine of the weights as they are, good until the next is asked for: they share their memory."""
        if self._copy is not None:
            try:
                return self._compile_copy(self._copy)
            except Exception as error:  # its failures have many types, and torch can do what it cannot
                log.warning("OpenVINO cannot follow this network (%s): torch validates it.", _first_line(error))
                self._copy = self._network = None
        return create_engine(self._model, self._size, "torch", self._threads, self._device)

    def _compile_copy(self, network: nn.Module) -> Engine:
        network.load_state_dict(self._model.state_dict())
        _settle(network)
        if self._network is None:
            self._network = _take_over_in_place(network, self._size)
        engine = _create_openvino(self._network, self._threads)
        _check_parity(engine, lambda x: _run_torch(network, x), self._size)
        return engine


def _settle(module: nn.Module) -> None:
    """Put a network in inference; some attention layers compute tables from their weights on the way there."""
    module.train()
    module.eval()


def _run_torch(module: nn.Module, images: Tensor) -> Tensor:
    module.eval()  # whoever trained it in between: a random depth would be cached as the photo's features
    with torch.inference_mode():
        return module(images.contiguous(memory_format=torch.channels_last)).float()


def _take_over(module: nn.Module, size: int) -> Any:
    """Return OpenVINO's model of a network for one photo at a time."""
    import openvino

    example = torch.zeros(1, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO uses a way of tracing that torch calls deprecated
        return openvino.convert_model(module, example_input=example, input=[1, 3, size, size])


def _take_over_in_place(module: nn.Module, size: int) -> Any:
    """Return OpenVINO's model of a network, for one photo at a time, that reads the network's own tensors.

    Raises ValueError where some of them are not among its constants. `openvino.convert_model` would fold BatchNorm into
    the weights at once; left alone, that happens when it is compiled.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    example = torch.zeros(1, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenVINO uses a way of tracing that torch calls deprecated
        decoder = TorchScriptPythonDecoder(module, example_input=(example,))
    frontend = FrontEndManager().load_by_framework("pytorch")
    network = frontend.convert(frontend.load(decoder))
    network.reshape(list(example.shape))
    read = {op.data.ctypes.data for op in network.get_ops() if op.get_type_name() == "Constant" and op.data.size}
    # Counters of batches seen are in no formula.
    tensors = {name: t for name, t in module.state_dict().items() if t.is_floating_point() and t.numel()}
    missing = sorted(name for name, tensor in tensors.items() if tensor.data_ptr() not in read)
    if missing:
        raise ValueError(f"{len(missing)} of {len(tensors)} tensors are not read in place, as {missing[0]}")
    return network


def _in_precision(precision: Precision, network: Any | Path, exact: Engine, size: int, threads: int) -> Engine:
    """Return a network's engine in a precision: the exact one, or one that differs from it by no more than rounding.

    Where there is none such it is the exact one again, and a line in the log says so.
    """
    if precision == "float32":
        return exact
    try:
        engine = _create_openvino(network, threads, precision)
        _check_parity(engine, exact, size, precision)
        return engine
    except Exception as error:  # its failures have many types, and the exact one works
        reason = _first_line(error)
        log.warning("This backbone cannot be run in %s (%s): it is run in float32, more slowly.", precision, reason)
        return exact


def _create_openvino(network: Any | Path, streams: int, precision: Precision = "float32") -> Engine:
    """Compile OpenVINO's model, or the file of one, for as many photos at once as there are `streams`.

    A stream for each core and one photo a stream: no core waits for another, the working set is smallest, and what
    comes out for a photo depends on nothing but the photo. `benchmarks/engines.py` measures it against batches.
    """
    import openvino

    settings = {
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        # Left to itself it would silently compute in bfloat16 on some processors.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
    }
    compiled = openvino.Core().compile_model(network, "CPU", settings)
    free: SimpleQueue[openvino.InferRequest] = SimpleQueue()
    for _ in range(streams):
        free.put(compiled.create_infer_request())

    def run(image: Tensor) -> Tensor:
        request = free.get()
        try:
            result = request.infer({0: image.contiguous().numpy()}, share_inputs=True)
            return torch.from_numpy(np.array(result[0], dtype=np.float32))
        finally:
            free.put(request)

    # What OpenVINO's Python part makes at its first answer, it makes without a lock: two threads that come to it at
    # the same time can wait for each other for ever. So the first answer is given before there are any.
    run(torch.zeros(list(compiled.input(0).shape)))
    # One worker more than streams, so that no stream waits while a photo is decoded.
    return Engine(run, 1, "openvino", streams + 1)


def _check_parity(
    engine: Engine, reference: Callable[[Tensor], Tensor], size: int, precision: Precision = "float32"
) -> None:
    """Raise ValueError unless an engine gives a reference's numbers on random smooth images, but for rounding.

    Smooth ones, because white noise drives some networks so far from what photos do that torch's own float32
    rounding is then larger than the tolerance.
    """
    coarse = torch.randn(CPU_BATCH, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    expected, found = reference(images), engine(images)
    if not expected.isfinite().all():  # a network that has diverged, which is said where it is trained
        return
    # Of all of a photo's outputs together, and of the one that differs most.
    gaps = [(expected - found).norm(p, dim=1) / expected.norm(p, dim=1).clamp_min(1e-6) for p in (2.0, math.inf)]
    gap = float(torch.stack(gaps).max())
    if not gap <= TOLERANCES[precision]:
        other = "torch's" if precision == "float32" else "those in float32"
        raise ValueError(f"its outputs differ from {other} by {gap:.1e} of their size")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
