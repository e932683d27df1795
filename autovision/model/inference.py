"""Inference-only functions from modules: OpenVINO on CPU, autocast on GPU, eager where neither fits.

One function compiles for features, evaluation and serving alike, so that all three see the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import nn

from autovision.model import converted

Precision = Literal["f32", "bf16"]

_log = logging.getLogger(__name__)


class Compiled(Protocol):
    """A thread-safe function from uint8 pixels (B, H, W, 3) to float32 arrays, one per output of the module."""

    runtime: str

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]: ...


@functools.cache
def native_precision() -> Precision:
    """bf16 where this node computes it in hardware, f32 elsewhere."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "f32"
    import openvino as ov

    return "bf16" if "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"


def compile_module(
    module: nn.Module, size: tuple[int, int], *, precision: Precision, threads: int | None = None
) -> Compiled:
    """Compile a module that takes uint8 pixels.

    Args:
        module: maps (B, H, W, 3) uint8 to one tensor or a tuple of tensors.
        size: height and width in pixels.
        threads: CPU threads; None: as many as torch uses.
    """
    module = module.eval()
    if torch.cuda.is_available():
        return CudaModule(module, precision)
    try:
        return OpenVinoModule(module, size, precision, threads or torch.get_num_threads())
    except Exception as error:  # noqa: BLE001 - a converter fails in many ways, and eager always works
        _log.warning("OpenVINO cannot convert this network (%s); it runs eagerly", error)
        return EagerModule(module)


class OpenVinoModule:
    """A network converted and compiled by OpenVINO for this CPU; the batch size is free."""

    runtime = "openvino"

    def __init__(self, module: nn.Module, size: tuple[int, int], precision: Precision, threads: int) -> None:
        import openvino as ov

        path = converted.folder(module, size) / "model.xml"
        if not path.is_file():
            converted.publish(path.parent, lambda folder: _convert(module, size, folder / path.name))
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # pinned, two trials on one machine would share the first core
        }
        self._compiled = ov.Core().compile_model(str(path), "CPU", settings)
        self._local = threading.local()

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        result = self._local.request.infer([pixels], share_inputs=True)
        return [np.array(result[i], dtype=np.float32) for i in range(len(result))]


def _convert(module: nn.Module, size: tuple[int, int], path: Path) -> None:
    import openvino as ov

    example = torch.zeros(2, *size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), _root_logger_kept(), torch.inference_mode():
        warnings.simplefilter("ignore")  # the tracer warns of every shape that it takes as a constant
        model = ov.convert_model(module, example_input=example, input=[ov.PartialShape([-1, *size, 3])])
    ov.save_model(model, path, compress_to_fp16=False)


@contextlib.contextmanager
def _root_logger_kept() -> Iterator[None]:
    """OpenVINO sets the root logger up for itself, and leaves it silent below ERROR when a conversion fails."""
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


class EagerModule:
    """Plain PyTorch on the CPU."""

    runtime = "eager"

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return _arrays(self._module(torch.from_numpy(pixels)))


class CudaModule:
    """Autocast on the current GPU, channels last."""

    runtime = "cuda"

    def __init__(self, module: nn.Module, precision: Precision) -> None:
        self._module = module.cuda().to(memory_format=torch.channels_last)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        enabled = self._dtype is not torch.float32
        with torch.inference_mode(), torch.autocast("cuda", self._dtype, enabled=enabled):
            return _arrays(self._module(torch.from_numpy(pixels).cuda(non_blocking=True)))


def _arrays(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.float().cpu().numpy() for output in several]
