"""The cache of converted networks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autovision.model import converted, formats
from autovision.model.inference import openvino_module

SIZE = (4, 4)


class Sum(nn.Module):
    """One weight over all pixels: cheap to convert."""

    def __init__(self, weight: float = 2.0, offset: float = 0.0, note: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.register_buffer("offset", torch.tensor(offset), persistent=False)
        self.note = note

    def extra_repr(self) -> str:
        return self.note

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.float().sum((1, 2, 3), keepdim=False)[:, None] * self.weight + self.offset


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "autovision" / "openvino"


@pytest.fixture
def conversions(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folder of every conversion that was really made."""
    made: list[Path] = []
    convert = formats.write_openvino

    def counted(module: nn.Module, size: tuple[int, int], path: Path) -> None:
        made.append(path.parent)
        convert(module, size, path)

    monkeypatch.setattr(formats, "write_openvino", counted)
    return made


def compiled(module: nn.Module) -> np.ndarray:
    return openvino_module(module.eval(), SIZE, "f32", 1)(np.ones((2, *SIZE, 3), np.uint8))[0]


def filled(data: bytes) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.xml").write_bytes(data)

    return write


def test_the_same_network_is_converted_once(conversions: list[Path], root: Path) -> None:
    first = compiled(Sum())
    np.testing.assert_array_equal(compiled(Sum()), first)
    assert len(conversions) == 1
    assert [path.name for path in root.iterdir()] == [converted.folder(Sum(), SIZE).name]
    np.testing.assert_allclose(compiled(Sum(weight=3.0)), 1.5 * first)
    assert len(conversions) == 2


def test_whatever_the_conversion_depends_on_names_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        converted.folder(Sum(), SIZE),
        converted.folder(Sum(weight=2.0000002), SIZE),
        converted.folder(Sum(offset=1.0), SIZE),
        converted.folder(Sum(note="max"), SIZE),
        converted.folder(Sum(), (4, 8)),
    }
    monkeypatch.setattr(converted, "code_version", lambda: "another")
    names.add(converted.folder(Sum(), SIZE))
    monkeypatch.setattr(converted.metadata, "version", lambda name: "another")
    names.add(converted.folder(Sum(), SIZE))
    assert len(names) == 7


def test_networks_that_differ_in_pooling_or_taps_alone_are_not_mistaken_for_each_other() -> None:
    from autovision.model.bundle import build_network
    from autovision.space.config import TrialConfig

    def folder(**changes: object) -> Path:
        config = {"backbone": "test_resnet", "weights": "random", "resolution": 64, **changes}
        return converted.folder(build_network(TrialConfig.model_validate(config), 2), (64, 64))

    assert len({folder(pooling="avg"), folder(pooling="max"), folder(pooling="gem")}) == 3


def test_a_conversion_that_fails_leaves_nothing(root: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.xml").write_bytes(b"half")
        raise RuntimeError("no memory left")

    with pytest.raises(RuntimeError):
        converted.publish(root / "network", fail)
    assert list(root.iterdir()) == []


def test_of_processes_that_convert_the_same_at_once_the_first_stays(root: Path) -> None:
    together = threading.Barrier(8)

    def publish(number: int) -> None:
        def write(folder: Path) -> None:
            filled(b"%d" % number)(folder)
            together.wait()  # all have written before any reveals

        converted.publish(root / "network", write)
        assert (root / "network" / "model.xml").is_file()

    threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in root.iterdir()] == ["network"]
    kept = (root / "network" / "model.xml").read_bytes()
    converted.publish(root / "network", filled(b"later"))
    assert (root / "network" / "model.xml").read_bytes() == kept


def test_the_oldest_go_when_there_are_too_many(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "_MOST", 3)
    for number in range(5):
        converted.publish(root / str(number), filled(b"x"))
        os.utime(root / str(number), (1000 + number, 1000 + number))
        # The one that was just published is never the one to go, whatever its time says.
        assert (root / str(number) / "model.xml").is_file()
    assert sorted(path.name for path in root.iterdir()) == ["2", "3", "4"]


def test_what_is_used_again_does_not_go_for_its_age(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converted, "_MOST", 3)
    for number in range(3):
        converted.publish(root / str(number), filled(b"x"))
        os.utime(root / str(number), (1000 + number, 1000 + number))
    kept = converted.provide(root / "0" / "model.xml", lambda folder: pytest.fail("it is there"))
    assert kept.read_bytes() == b"x"
    converted.provide(root / "new" / "model.xml", filled(b"y"))
    assert sorted(path.name for path in root.iterdir()) == ["0", "2", "new"]


def test_removing_a_network_takes_its_name_away_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed while it removes one leaves no folder that passes for a converted network."""
    monkeypatch.setattr(converted, "_MOST", 1)
    converted.publish(root / "old", filled(b"x"))
    os.utime(root / "old", (1000, 1000))
    rmtree, removed = converted.shutil.rmtree, []

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if "evicted" in path.name:
            removed.append(path)
        else:
            rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(converted.shutil, "rmtree", killed)
    converted.publish(root / "new", filled(b"y"))
    assert len(removed) == 1
    assert not (root / "old").exists()
    assert (root / "new" / "model.xml").is_file()
