"""Files of weights: what is read, and what is refused and how."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from autovision.errors import AutoVisionError, CorruptObject, InvalidInput, InvalidWeights
from autovision.model import weight_files

TENSORS = {"b.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.ones(3, dtype=torch.float16)}


def old_format(tensors: Any, path: Path) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, Callable[[Any, Path], None]] = {
    "safetensors": save_file,
    "torch": torch.save,
    "torch before 1.6": old_format,
}

each_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@each_format
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin", ""])
def test_the_content_tells_the_format(write: Callable[..., None], suffix: str, tmp_path: Path) -> None:
    write(TENSORS, tmp_path / f"weights{suffix}")
    assert_same(weight_files.read(tmp_path / f"weights{suffix}"), TENSORS)


@pytest.mark.parametrize("format_", ["torch", "torch before 1.6"])
def test_a_pytorch_file_keeps_its_order(format_: str, tmp_path: Path) -> None:
    WRITERS[format_](TENSORS, tmp_path / "weights.pth")
    assert list(weight_files.read(tmp_path / "weights.pth")) == ["b.weight", "a.bias"]


@pytest.mark.parametrize(
    "saved",
    [
        {"state_dict": TENSORS, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        {"model": TENSORS, "optimizer": {"state": {0: {"step": torch.zeros(1)}}}},
        {"model": {"state_dict": TENSORS}},
        {"state_dict": {"b.weight": torch.zeros(3, 4)}, "model_ema": TENSORS},
        {"state_dict": {"b.weight": torch.zeros(3, 4)}, "state_dict_ema": TENSORS},
        {**TENSORS, "epoch": 3},
    ],
    ids=["state_dict", "model", "nested", "model_ema", "state_dict_ema", "bare"],
)
def test_wrappers_of_training_scripts_are_taken_off(saved: Any, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "checkpoint.pth")
    assert_same(weight_files.read(tmp_path / "checkpoint.pth"), TENSORS)


@pytest.fixture(scope="module", params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A place to cut a file short, and the whole file."""
    path = tmp_path_factory.mktemp("weights") / "whole"
    WRITERS[request.param]({**TENSORS, "large": torch.rand(3000)}, path)
    return path.parent / "cut short.pth", path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_every_truncation_is_refused_as_damage(share: float, written: tuple[Path, bytes]) -> None:
    path, whole = written
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CorruptObject, match=r"cut short\.pth.*(fetch|download) it again"):
        weight_files.read(path)


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 400))
def test_truncations_within_the_headers(start: int, written: tuple[Path, bytes]) -> None:
    path, whole = written
    path.write_bytes(whole[:start])
    with pytest.raises(CorruptObject):
        weight_files.read(path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), at=st.integers(0, 300))
def test_other_bytes_are_read_or_refused_and_nothing_else(
    data: bytes, at: int, written: tuple[Path, bytes]
) -> None:
    """Bits that flip within a tensor cannot be noticed here; anything else has to be an error of ours."""
    path, whole = written
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])
    try:
        assert all(isinstance(tensor, Tensor) for tensor in weight_files.read(path).values())
    except AutoVisionError as error:
        assert "cut short.pth" in str(error)


class Hostile:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def pickled(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize("write", [torch.save, old_format, pickled])
def test_code_in_a_file_is_never_run(write: Callable[..., None], tmp_path: Path) -> None:
    write({"state_dict": {"a": Hostile(tmp_path / "was run")}}, tmp_path / "evil.pth")
    with pytest.raises(CorruptObject, match=r"evil\.pth .*could run code and are never loaded.*save_file"):
        weight_files.read(tmp_path / "evil.pth")
    assert not (tmp_path / "was run").exists()


def test_the_objects_that_are_refused_are_named(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "model.pth")
    with pytest.raises(CorruptObject, match=r"\(torch\.nn\.modules\.\w+\.\w+, .*\), which could run code"):
        weight_files.read(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; fetch it again"),
        (b"\n <!DOCTYPE html><html><title>404 Not Found</title></html>", "is a web page, not weights"),
        (b"<HTML>Sign in</HTML>", "is a web page, not weights"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page, not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull"),
        (b'{"error": "Repository not found"}', "damaged"),
        (b"no weights", "damaged"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_failed_downloads_leave(content: bytes, said: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CorruptObject, match=rf"weights\{suffix} .*{said}"):
        weight_files.read(path)


def test_other_formats_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", a=np.zeros(3))
    with pytest.raises(CorruptObject, match=r"of another format.*safetensors and from files of torch.save"):
        weight_files.read(tmp_path / "weights.npz")


@pytest.mark.parametrize("saved", [{"epoch": 3}, [torch.zeros(2)], {"state_dict": {}}])
def test_a_file_without_a_network_is_refused(saved: Any, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "weights.pth")
    with pytest.raises(InvalidWeights, match=r"weights\.pth holds no tensors"):
        weight_files.read(tmp_path / "weights.pth")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no weights file .*gone\.pth; check the path"):
        weight_files.read(tmp_path / "gone.pth")
    with pytest.raises(InvalidInput, match="is a folder; name the file"):
        weight_files.read(tmp_path)
