"""Inference-only functions from modules: OpenVINO on CPU, torch.compile with autocast on GPU, else eager.

`compile_module` compiles for features and evaluation alike, so that both see the same numbers. A server may run a model
on another runtime (`autovision.model.runtimes`), if it was compared with PyTorch on real images before.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autovision.model import converted, formats
from autovision.model.compiled import Compiled, OnnxModule, OpenVinoModule, Precision, cpu_precision

_Forward = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]

_log = logging.getLogger(__name__)


@functools.cache
def native_precision() -> Precision:
    """bf16 where this node computes it in hardware, f32 elsewhere."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "f32"
    return cpu_precision()


def compile_module(
    module: nn.Module, size: tuple[int, int], *, precision: Precision, threads: int | None = None
) -> Compiled:
    """Compile a module that takes uint8 pixels. On a machine with a GPU the module is moved there.

    Args:
        module: maps (B, H, W, 3) uint8 to one tensor or a tuple of tensors.
        size: height and width in pixels.
        threads: CPU threads; None: as many as torch uses.
    """
    module = module.eval()
    if torch.cuda.is_available():
        return TorchModule(module, size, precision, torch.device("cuda"))
    try:
        return openvino_module(module, size, precision, threads or torch.get_num_threads())
    except Exception as error:  # noqa: BLE001 - a converter fails in many ways, and eager always works
        _log.warning("OpenVINO cannot convert this network (%s); it runs eagerly", error)
        return EagerModule(module)


def openvino_file(module: nn.Module, size: tuple[int, int]) -> Path:
    """The network in OpenVINO's form, in float32: converted now, or found among those that were."""
    path = converted.folder(module, size) / formats.OPENVINO_FILE
    return converted.provide(path, lambda folder: formats.write_openvino(module, size, folder / path.name))


def openvino_module(
    module: nn.Module, size: tuple[int, int], precision: Precision, threads: int
) -> OpenVinoModule:
    """A network converted, if need be, and compiled by OpenVINO for this CPU."""
    return OpenVinoModule(openvino_file(module, size), precision, threads)


def onnx_module(module: nn.Module, size: tuple[int, int], threads: int) -> OnnxModule:
    """A network converted to ONNX, if need be. Raises `PackageMissing` where ONNX Runtime is not installed."""
    formats.require(("onnxruntime", "onnx", "onnxscript"), what="ONNX Runtime", extra="onnx")
    path = converted.folder(module, size, "onnx") / formats.ONNX_FILE
    converted.provide(path, lambda folder: formats.write_onnx(module, size, folder / path.name))
    return OnnxModule(path, threads)


class EagerModule:
    """Plain PyTorch on the CPU."""

    runtime = "eager"

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        with torch.inference_mode():
            return _arrays(self._module(torch.from_numpy(pixels)))


class TorchModule:
    """Compiled by torch.compile, in channels last and with autocast; eager if it cannot be compiled.

    It is compiled while it is made, for any batch size, so that calls from several threads find it ready. The
    module is moved to the device, in place.
    """

    def __init__(
        self, module: nn.Module, size: tuple[int, int], precision: Precision, device: torch.device
    ) -> None:
        self._device = device
        self._autocast = precision == "bf16"
        eager: _Forward = module.to(device).to(memory_format=torch.channels_last)
        self._forward: _Forward = torch.compile(eager)
        self.runtime = f"{device.type}, compiled"
        try:
            # The second size tells the compiler that sizes vary; a single image is a case of its own.
            for images in (2, 64, 1):
                self(np.zeros((images, *size, 3), np.uint8))
        except Exception as error:  # noqa: BLE001 - a compiler fails in many ways, and eager always works
            _log.warning("torch.compile cannot compile this network (%s); it runs eagerly", error)
            self._forward, self.runtime = eager, f"{device.type}, eager"

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            return _arrays(self._forward(torch.from_numpy(pixels).to(self._device, non_blocking=True)))


def _arrays(outputs: torch.Tensor | tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    several = outputs if isinstance(outputs, tuple) else (outputs,)
    return [output.float().cpu().numpy() for output in several]
