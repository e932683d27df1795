"""Networks as files that other runtimes read: OpenVINO's form, ONNX, and a program of PyTorch's with its weights.

Each takes uint8 pixels (B, height, width, 3), for any B. Weights and arithmetic are float32.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from autovision.errors import AutoVisionError
from autovision.model import telemetry

OPENVINO_FILE, ONNX_FILE, PROGRAM_FILE, WEIGHTS_FILE = (
    "model.xml",
    "model.onnx",
    "program.pt2",
    "model.safetensors",
)


class PackageMissing(AutoVisionError):
    """An optional package is not installed; install the extra that the message names."""


class NotConvertible(AutoVisionError):
    """The network cannot be written in this format; choose another format."""


def require(packages: Sequence[str], *, what: str, extra: str) -> None:
    """Raises `PackageMissing`, with the command that mends it, for the first package that is not installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise PackageMissing(
                f"{what} needs the package {name!r}, which is not installed; run: pip install 'autovision[{extra}]'"
            )


def write_openvino(module: nn.Module, size: tuple[int, int], path: Path) -> None:
    """`path`, which ends in .xml, and its weights beside it in a .bin.

    Args:
        size: height and width of the images.
    """
    telemetry.silence()
    import openvino as ov

    with _quiet(), torch.inference_mode():
        shape = ov.PartialShape([-1, *size, 3])
        model = ov.convert_model(module, example_input=_example(size), input=[shape])
    ov.save_model(model, path, compress_to_fp16=False)


def write_onnx(module: nn.Module, size: tuple[int, int], path: Path) -> None:
    """One file with graph and weights. Raises `PackageMissing`, `NotConvertible`."""
    require(("onnx", "onnxscript"), what="ONNX", extra="onnx")
    with _quiet():
        try:
            torch.onnx.export(
                _program(module, size), f=path, dynamo=True, external_data=False, optimize=True, verbose=False
            )
        except NotConvertible:
            raise
        except Exception as error:
            raise _not_convertible("ONNX", error) from error


def write_pytorch(module: nn.Module, size: tuple[int, int], folder: Path) -> None:
    """`PROGRAM_FILE`, which needs neither timm nor this package, and `WEIGHTS_FILE` with its tensors.

    The program is that of `torch.export`. Its own copy of the weights is left out: `load_state_dict` with
    `assign=True` puts in those of the other file.

    Raises `NotConvertible`.
    """
    with _quiet():
        program = _program(module, size)
        tensors = program.state_dict
        save_file(
            {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()},
            folder / WEIGHTS_FILE,
        )
        for name, tensor in list(tensors.items()):
            # One number that is seen as a whole tensor: the file keeps only the number.
            hollow = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
            is_parameter = isinstance(tensor, nn.Parameter)
            tensors[name] = nn.Parameter(hollow, requires_grad=False) if is_parameter else hollow
        torch.export.save(program, folder / PROGRAM_FILE)


def _program(module: nn.Module, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """The module's computing for any number of images. Raises `NotConvertible`."""
    try:
        with torch.no_grad():
            return torch.export.export(
                module, (_example(size),), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
            )
    except Exception as error:  # it refuses networks in many ways
        raise _not_convertible("a program of PyTorch's", error) from error


def _not_convertible(what: str, error: Exception) -> NotConvertible:
    first = (str(error).strip().splitlines() or [""])[0]
    return NotConvertible(
        f"this network cannot be written as {what} ({type(error).__name__}: {first[:200]}); choose another format"
    )


def _example(size: tuple[int, int]) -> torch.Tensor:
    return torch.zeros(2, *size, 3, dtype=torch.uint8)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Converters warn of every shape that they take as a constant, and set the root logger up for themselves.

    OpenVINO leaves it silent below ERROR when a conversion fails.
    """
    root = logging.getLogger()
    level, filters, handlers = root.level, root.filters[:], root.handlers[:]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers
