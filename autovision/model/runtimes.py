"""The runtimes that can serve a network: which this node has, what loads each of them, how fast they are.

Which of them serves a model is decided in `autovision.registry.runtimes`, with evidence.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from autovision.errors import InvalidInput
from autovision.model.compiled import Compiled, OpenVinoModule, Precision
from autovision.model.inference import (
    EagerModule,
    TorchModule,
    native_precision,
    onnx_module,
    openvino_module,
)
from autovision.provenance import processor
from autovision.records.base import digest_of
from autovision.records.runtimes import TIMED_BATCH, Bound, Runtime, Timing, named

BOUNDS: dict[str, Bound] = {
    "f32": Bound(max_difference=0.005, agreement=0.98),
    "bf16": Bound(max_difference=0.10, agreement=0.95),
    "int8": Bound(max_difference=0.35, agreement=0.90),
}
"""precision -> how far from eager PyTorch in float32 a runtime may be and still serve"""

_ROUNDS, _LEAST_ROUNDS, _MOST_S = 15, 3, 4.0
"""rounds of timing, each of which times every runtime once; the least, and seconds after which no more are begun"""

_log = logging.getLogger(__name__)


def precision_of(runtime: Runtime) -> str:
    return runtime.rpartition("-")[2]


def evaluated_on(precision: str) -> Runtime:
    """The runtime that `compile_module` makes, on which models are evaluated."""
    engine = "torch" if torch.cuda.is_available() else "openvino"
    return named(f"{engine}-{precision}")


def candidates(precision: str) -> tuple[Runtime, ...]:
    """What this node could serve a model with that was evaluated in `precision`, int8 apart; that one first.

    With a GPU it is torch.compile alone. bfloat16 is none of them where the processor does not compute it itself, ONNX
    Runtime only where it is installed.
    """
    first = evaluated_on(precision)
    if torch.cuda.is_available():
        return (first,)
    found: list[Runtime] = [first, "openvino-f32"]
    if native_precision() == "bf16":
        found.append("openvino-bf16")
    if all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript")):
        found.append("onnx-f32")
    return tuple(dict.fromkeys([*found, "eager-f32"]))


def build(
    module: nn.Module, size: tuple[int, int], runtime: Runtime, threads: int, *, int8: Path | None = None
) -> Compiled:
    """A network on a runtime: seconds, or some more if it is converted for the first time.

    Args:
        size: height and width of the images.
        int8: the quantized network's file, for `openvino-int8`.

    Raises:
        PackageMissing: the runtime is not installed.
        Exception: of any type, where the runtime cannot run this network.
    """
    module = module.eval()
    match runtime:
        case "openvino-int8":
            assert int8 is not None, "int8 is of a file"
            return OpenVinoModule(int8, native_precision(), threads)
        case "openvino-f32" | "openvino-bf16":
            return openvino_module(module, size, cast(Precision, precision_of(runtime)), threads)
        case "onnx-f32":
            return onnx_module(module, size, threads)
        case "torch-f32" | "torch-bf16":
            return TorchModule(module, size, cast(Precision, precision_of(runtime)), _gpu(runtime))
        case "eager-f32":
            return EagerModule(module)


def _gpu(runtime: Runtime) -> torch.device:
    if not torch.cuda.is_available():
        raise InvalidInput(f"runtime {runtime!r} needs a GPU, and this node has none; use auto")
    return torch.device("cuda")


# ------------------------------------------------------------------------------------------------- speed


def node(threads: int) -> str:
    """What timings are the same for, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, {native_precision()}"
    return f"{processor()}, {threads} thread{'s' if threads > 1 else ''}, {native_precision()}"


def structure(module: nn.Module, size: tuple[int, int]) -> str:
    """A digest of what a network's speed depends on: its layers and the images' size, but no weights."""
    return digest_of([repr(module), size])


def versions() -> dict[str, str]:
    """Of everything that runs networks here."""
    found = {}
    for name in ("torch", "openvino", "onnxruntime"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def timings(
    compiled: Mapping[Runtime, Compiled],
    size: tuple[int, int],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Runtime, Timing]:
    """What each runtime takes for one image and for a batch: medians of rounds, in each of which all take a turn."""
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (TIMED_BATCH, *size, 3), dtype=np.uint8)
    one = batch[:1]
    for run in compiled.values():
        run(batch), run(one)
    seconds: dict[Runtime, tuple[list[float], list[float]]] = {name: ([], []) for name in compiled}
    until = clock() + _MOST_S
    for number in range(_ROUNDS):
        if number >= _LEAST_ROUNDS and clock() > until:
            break
        for name, run in compiled.items():
            for pixels, into in zip((one, batch), seconds[name], strict=True):
                began = clock()
                run(pixels)
                into.append(clock() - began)
    return {
        name: Timing(one_ms=1e3 * statistics.median(ones), batch_ms=1e3 * statistics.median(batches))
        for name, (ones, batches) in seconds.items()
    }


def speedup(before: Timing, after: Timing) -> float:
    """How many times faster: the geometric mean over one image and a batch."""
    return math.sqrt(before.one_ms / after.one_ms * before.batch_ms / after.batch_ms)
