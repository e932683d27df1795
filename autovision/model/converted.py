"""Converted networks, kept on the node: conversion takes seconds, and the same network is wanted again and again.

A folder's name is a digest of everything that the conversion depends on; it appears whole, by a rename. The
folder is a cache below `XDG_CACHE_HOME` and may be deleted at any time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from autovision.provenance import code_version
from autovision.records.base import digest_of

if TYPE_CHECKING:
    from torch import nn

Form = Literal["openvino", "onnx", "int8"]
Place = Literal["openvino", "onnx", "int8", "ready"]

_WRITERS: dict[Form, str] = {"openvino": "openvino", "onnx": "onnxscript", "int8": "openvino"}
"""form -> the package that converts"""
_MOST = 48
"""networks that are kept of each form; of some 5 to 100 MB each"""


def folder(module: nn.Module, size: tuple[int, int], form: Form = "openvino") -> Path:
    """Where the converted form of a module for images of `size` (height, width) lies, or would lie."""
    from autovision.model.weights import digest_of_tensors

    buffers = dict(module.named_buffers())  # also those that a state dict leaves out
    tensors = {**module.state_dict(), **{f"buffer.{name}": tensor for name, tensor in buffers.items()}}
    made_of = [
        digest_of_tensors(tensors),
        repr(module),
        size,
        code_version(),
        metadata.version(_WRITERS[form]),
    ]
    return root(form) / digest_of(made_of)[:32]


def from_store(form: Form, digest: str) -> Path:
    """Where a copy of stored files lies, or would lie, whose contents have this digest together."""
    return root(form) / digest[:32]


def provide(path: Path, write: Callable[[Path], None]) -> Path:
    """A converted file, in a folder that `write` fills if it is not there; either way it has been used now."""
    if path.is_file():
        with suppress(OSError):  # another process removes it
            os.utime(path.parent)
        return path
    publish(path.parent, write)
    if not path.is_file():  # of the folder that was there a part is gone
        shutil.rmtree(path.parent, ignore_errors=True)
        publish(path.parent, write)
    return path


def publish(where: Path, write: Callable[[Path], None]) -> None:
    """Fill a folder by `write` and reveal it at `where`; one that another process revealed meanwhile is kept."""
    where.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=where.parent, prefix=".converting-"))
    try:
        write(scratch)
        with suppress(OSError):  # it is there already
            scratch.rename(where)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    _evict(where.parent)


def _evict(root: Path) -> None:
    """Remove what was not used for longest beyond the limit; a process that has one mapped keeps it."""

    def age(path: Path) -> float:
        with suppress(OSError):
            return path.stat().st_mtime
        return 0.0

    for path in sorted(root.iterdir(), key=age)[:-_MOST]:
        with suppress(OSError):  # another process removes it, too
            # Out of its place in one step: a folder that is half removed would pass for a converted network.
            doomed = path.rename(path.with_name(f".evicted-{secrets.token_hex(8)}"))
            shutil.rmtree(doomed, ignore_errors=True)


def root(form: Place) -> Path:
    """The folder of everything of a kind on this node."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "autovision" / form
