"""What runs a network forward fastest on this processor, with its inputs in memory already.

    python benchmarks/engines.py [BACKBONE ...] [--size 224] [--threads 2]

Each kind of engine in turn, five rounds: OpenVINO with a stream for each core and one photo a stream (what wildtune
does), with batches of photos over all cores, torch eager and compiled, and ONNX Runtime where it is installed
(`pip install onnxruntime onnx onnxscript`).
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import openvino
import timm
import torch
from torch import nn

ROUNDS, SECONDS = 5, 3.0

# Runs some photos, from as many threads as is best for it, for about the given seconds; returns photos a second.
Engine = Callable[[float], float]


def create_openvino(model: nn.Module, size: int, threads: int, batch: int, streams: int) -> Engine:
    """Return OpenVINO with `streams` requests at once of `batch` photos each."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape = [batch, 3, size, size]
        converted = openvino.convert_model(model, example_input=torch.zeros(shape), input=shape)
    settings = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    images = np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)

    def work(until: float) -> int:
        request, count = compiled.create_infer_request(), 0
        while time.perf_counter() < until:
            request.infer({0: images}, share_inputs=True)
            count += batch
        return count

    def run(seconds: float) -> float:
        started = time.perf_counter()
        with ThreadPoolExecutor(streams) as pool:
            done = sum(pool.map(work, [started + seconds] * streams))
        return done / (time.perf_counter() - started)

    return run


def create_torch(model: nn.Module, size: int, batch: int, compiled: bool) -> Engine:
    """Return torch, channels_last, in inference mode."""
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    function = torch.compile(model, dynamic=False) if compiled else model
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)

    def once() -> None:
        with torch.inference_mode():
            function(images)

    return repeat(once, batch)


def create_onnx(model: nn.Module, size: int, threads: int, batch: int) -> Engine:
    """Return ONNX Runtime on all threads."""
    import onnxruntime

    written = io.BytesIO()
    torch.onnx.export(model, (torch.zeros(batch, 3, size, size),), written, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(written.getvalue(), options, providers=["CPUExecutionProvider"])
    inputs = {session.get_inputs()[0].name: np.zeros((batch, 3, size, size), np.float32)}
    return repeat(lambda: session.run(None, inputs), batch)


def repeat(once: Callable[[], object], batch: int) -> Engine:
    """Return an engine that calls a function of a batch again and again."""

    def run(seconds: float) -> float:
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            once()
            count += batch
        return count / (time.perf_counter() - started)

    return run


def create_engines(backbone: str, size: int, threads: int) -> dict[str, Engine]:
    """Return every engine by its name."""
    model = timm.create_model(backbone, pretrained=False, num_classes=0).eval()
    engines = {f"OpenVINO, {threads} streams of 1": create_openvino(model, size, threads, 1, threads)}
    engines |= {f"OpenVINO, batch {b}": create_openvino(model, size, threads, b, 1) for b in (1, 8, 32)}
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnx"):
        engines |= {f"ONNX Runtime, batch {b}": create_onnx(model, size, threads, b) for b in (1, 8, 32)}
    engines |= {f"torch, batch {b}": create_torch(model, size, b, compiled=False) for b in (8, 32)}
    engines["torch compiled, batch 8"] = create_torch(model, size, 8, compiled=True)
    return engines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=["efficientnet_b0"])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for backbone in arguments.backbones:
        engines = create_engines(backbone, arguments.size, arguments.threads)
        for run in engines.values():
            run(SECONDS / 3)  # the first calls are slower
        rates: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(ROUNDS):
            for name, run in engines.items():
                rates[name].append(run(SECONDS))
        print(f"{backbone}, {arguments.size} px, {arguments.threads} threads: photos a second")
        for name, values in rates.items():
            print(f"  {name:28} {statistics.median(values):6.1f} ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main()
