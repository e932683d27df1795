"""Files of weights as other programs write them: safetensors, or what `torch.save` made of plain tensors.

What a file is, is seen from its content, not from its name. No Python object is ever rebuilt from a file
(`weights_only`), so a hostile one cannot run code.
"""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from autovision.errors import CorruptObject, InvalidInput, InvalidWeights

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model")
"""keys under which training scripts keep a network's tensors; averaged ones are the better ones, so they go first"""
_AGAIN = "fetch it again, and compare its size or checksum with what its source states"
_SNIFFED = 512
"""bytes that tell one kind of file from another"""
_SAFETENSORS_HEADER = 8
"""bytes before the JSON header, which hold its length"""
_NAMED_OBJECTS = 5


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by the names that it gives them, in its order, on the CPU.

    Raises:
        InvalidInput: there is no such file, or it may not be read.
        CorruptObject: it is truncated, damaged, no file of weights, or holds other objects than tensors.
        InvalidWeights: it can be read, but holds no tensors.
    """
    head = _head(path)
    _refuse_what_is_no_weights(path, head)
    tensors = _read_safetensors(path) if head[_SAFETENSORS_HEADER:][:1] == b"{" else _read_torch(path)
    if not tensors:
        raise InvalidWeights(
            f"weights file {path} holds no tensors; give a file with the weights of a network"
        )
    return tensors


def _head(path: Path) -> bytes:
    if not path.exists():
        raise InvalidInput(f"there is no weights file {path}; check the path")
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder; name the file of weights in it")
    try:
        with path.open("rb") as file:
            return file.read(_SNIFFED)
    except OSError as error:
        raise InvalidInput(
            f"weights file {path} cannot be read: {error.strerror}; check your rights"
        ) from error


def _refuse_what_is_no_weights(path: Path, head: bytes) -> None:
    start = head.lstrip().lower()
    if not head:
        raise CorruptObject(f"weights file {path} is empty; {_AGAIN}")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise CorruptObject(
            f"weights file {path} is a web page, not weights: the server answered with a page instead of the file; "
            "download it again from the address of the file itself, logged in if its source asks for that"
        )
    if start.startswith(b"version https://git-lfs"):
        raise CorruptObject(
            f"weights file {path} is only a Git LFS pointer to the weights; fetch the file itself with `git lfs pull`"
        )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except Exception as error:
        raise CorruptObject(
            f"weights file {path} is damaged or truncated ({_first_line(error)}); {_AGAIN}"
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    # `Namespace` is what training scripts store their options in; it holds values and runs nothing.
    allowed = torch.serialization.safe_globals([argparse.Namespace])
    try:
        # Opened here, since torch itself goes by the name; its remarks are on what is refused right after.
        with path.open("rb") as file, allowed, warnings.catch_warnings(action="ignore"):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CorruptObject(
            f"weights file {path} is damaged, or holds Python objects{_foreign_objects(path)}, which could run code "
            "and are never loaded; fetch it again, or have its author save the tensors alone: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from error
    except Exception as error:
        raise CorruptObject(
            f"weights file {path} is damaged, truncated or of another format ({_first_line(error)}); "
            f"{_AGAIN}; weights are read from safetensors and from files of torch.save"
        ) from error
    return _tensors_in(loaded)


def _foreign_objects(path: Path) -> str:
    """The names of what a PyTorch file would have to import, in brackets, if it can be told."""
    try:
        found = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # noqa: BLE001 - this looks into a file that is bad already; any failure means "cannot be told"
        return ""
    more = ", …" if len(found) > _NAMED_OBJECTS else ""
    return f" ({', '.join(found[:_NAMED_OBJECTS])}{more})" if found else ""


def _tensors_in(loaded: Any) -> dict[str, Tensor]:
    """The tensors of a network in what a training script saved, without the wrappers around them."""
    if not isinstance(loaded, Mapping):
        return {}
    for key in _WRAPPERS:
        if isinstance(loaded.get(key), Mapping) and (inner := _tensors_in(loaded[key])):
            return inner
    return {str(name): value for name, value in loaded.items() if isinstance(value, Tensor)}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
