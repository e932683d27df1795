"""int8: made of a real network, and let in by evidence only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from autovision.errors import InvalidInput
from autovision.model import formats, runtimes
from autovision.model.formats import PackageMissing
from autovision.promotion import quantization
from autovision.promotion.quantization import Measured, checks, quantize
from autovision.records.datasets import Split
from autovision.records.runtimes import Bound, Parity, Runtime, Timing
from autovision.registry import quantized
from autovision.registry.runtimes import OnThisNode, RuntimeRefused, load
from autovision.store import MemoryStore, keys

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def parity_of(difference: float = 0.02, agreement: float = 1.0, shift: float = 0.01) -> Parity:
    return Parity(
        dataset="d@1",
        split=Split.TEST,
        images=64,
        max_difference=difference,
        agreement=agreement,
        embedding_shift=shift,
        bound=runtimes.BOUNDS["int8"],
    )


def measured(**changes: Any) -> Measured:
    """All is well but for the changes."""
    fields = {
        "gained": 2,
        "lost": 2,
        "images": 1000,
        "timing": Timing(one_ms=5, batch_ms=50),
        "timing_before": Timing(one_ms=10, batch_ms=100),
        "size_bytes": 4_000_000,
        "size_bytes_before": 13_000_000,
        "parity": parity_of(),
    }
    return Measured(**{**fields, **changes})


def failed(found: Measured) -> dict[str, str]:
    return {check.name: check.reason for check in checks(found) if not check.passed}


def test_what_meets_every_condition_may_serve() -> None:
    assert [check.name for check in checks(measured())] == [
        "accuracy",
        "closeness to PyTorch",
        "faster",
        "smaller",
    ]
    assert failed(measured()) == {}
    assert "69% less" in checks(measured())[3].reason
    assert "2.00 times as fast" in checks(measured())[2].reason


@pytest.mark.parametrize(
    ("changes", "name", "said"),
    [
        ({"lost": 30}, "accuracy", "that less than 2 points are lost is not shown"),
        ({"images": 40}, "accuracy", "40 images cannot show"),
        ({"gained": 200, "lost": 200}, "accuracy", "1000 images cannot show"),
        ({"parity": parity_of(difference=0.5)}, "closeness to PyTorch", "off by up to 0.5"),
        ({"parity": parity_of(agreement=0.8)}, "closeness to PyTorch", "80.0%"),
        ({"parity": parity_of(shift=0.3)}, "closeness to PyTorch", "mean embedding off by 0.300"),
        ({"timing": Timing(one_ms=9.5, batch_ms=95)}, "faster", "1.05 times as fast"),
        ({"timing": Timing(one_ms=5, batch_ms=190)}, "faster", "one image 2.00, a batch 0.53"),
        ({"size_bytes": 13_000_000}, "smaller", "0% less"),
    ],
)
def test_each_condition_refuses_by_itself(changes: dict[str, Any], name: str, said: str) -> None:
    found = failed(measured(**changes))
    assert list(found) == [name]
    assert said in found[name]


def test_the_change_of_accuracy_has_an_interval_that_holds_it_and_is_symmetric() -> None:
    change, mirrored = measured(gained=4, lost=9).change, measured(gained=9, lost=4).change
    assert change.low < change.value < change.high
    assert change.value == pytest.approx(-0.005)
    assert (change.low, change.high) == pytest.approx((-mirrored.high, -mirrored.low))


@pytest.mark.parametrize(
    ("flags", "overflows"),
    [
        ("sse4_2 avx2 fma", True),
        ("avx2 avx512_vnni", False),
        ("avx_vnni", False),
        ("amx_int8", False),
        ("", True),
    ],
)
def test_processors_whose_sums_of_bytes_may_overflow_are_told_by_their_flags(
    flags: str, overflows: bool
) -> None:
    assert quantization.saturates(f"flags\t\t: fpu {flags}") is overflows


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


@pytest.fixture
def fast_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    """int8 takes half of what the others do: what is measured on such a tiny network says nothing."""

    def timings(compiled: dict[Runtime, Any], size: tuple[int, int]) -> dict[Runtime, Timing]:
        return {
            name: Timing(one_ms=5, batch_ms=50)
            if name == "openvino-int8"
            else Timing(one_ms=10 + len(name), batch_ms=100)
            for name in compiled
        }

    monkeypatch.setattr(runtimes, "timings", timings)


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny random network, which no real one is like, answers otherwise in int8; and the images are few."""
    monkeypatch.setattr(quantization, "MARGIN", 0.6)
    any_answer = Bound(max_difference=1.0, agreement=0.0, embedding_shift=10.0)
    monkeypatch.setitem(runtimes.BOUNDS, "int8", any_answer)


@pytest.mark.usefixtures("fast_int8", "lenient")
def test_a_quantized_model_serves_where_its_latest_verdict_says_so(
    tiny: History, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.models[1]
    with monkeypatch.context() as strict:
        strict.setattr(quantization, "MARGIN", 0.001)
        refused = quantize(store, model.id, threads=1)
    assert not refused.accepted
    assert quantized.refusals(refused).startswith("accuracy changes by")
    assert OnThisNode(store, model, 1).chosen(measure=True) != "openvino-int8"
    with pytest.raises(RuntimeRefused, match=r"int8 may not serve model .* cannot show"):
        load(store, model.id, threads=1, runtime="openvino-int8")

    verdict = quantize(store, model.id, threads=1)
    assert verdict.accepted, verdict.checks
    assert len(quantized.all_of(store, model.id)) == 1
    assert verdict == quantized.read(store, model.id, 1)
    assert verdict.size_bytes < 0.6 * verdict.size_bytes_before
    assert verdict.parity.max_difference > 0, "it is another network"
    assert verdict.speedup > 2
    assert verdict.accuracy_change.value == pytest.approx(verdict.accuracy - verdict.accuracy_before)
    assert verdict.split is Split.VALIDATION and verdict.calibrated_on > 50

    here = OnThisNode(store, model, 1)
    assert here.chosen(measure=True) == "openvino-int8"
    pixels = np.zeros((2, 64, 64, 3), np.uint8)
    int8, before = load(store, model.id, threads=1), load(store, model.id, threads=1, runtime="evaluated")
    assert int8.model == before.model
    assert (int8.score(pixels)[1] != before.score(pixels)[1]).any()
    # On nodes of another kind it was never judged.
    assert OnThisNode(store, model, 2).chosen(measure=True) != "openvino-int8"
    with pytest.raises(RuntimeRefused, match="no int8 form for nodes of this kind"):
        load(store, model.id, threads=2, runtime="openvino-int8")


@pytest.mark.usefixtures("fast_int8", "lenient")
def test_several_labels_are_quantized_too(scenes: Scenes) -> None:
    verdict = quantize(scenes.copy(), scenes.model.id, threads=1)
    assert 0.5 < verdict.accuracy <= 1
    assert verdict.checks[0].passed, verdict.checks


def test_without_nncf_the_command_that_installs_it_is_named(
    tiny: History, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PackageMissing, match=r"pip install 'autovision\[int8\]'"):
        quantize(store, tiny.models[1].id)


def test_a_data_set_without_validation_images_is_refused(tiny: History, store: MemoryStore) -> None:
    from autovision.dataset import catalog, manifest
    from autovision.store import records

    version = catalog.get(store, tiny.models[0].lineage.dataset)
    rows = [row for row in manifest.read(store, version) if row.split is not Split.VALIDATION]
    key, digest = manifest.write(store, version.name, rows)
    store.delete(keys.dataset_version(version.name, version.version))
    records.create(
        store,
        keys.dataset_version(version.name, version.version),
        version.with_(manifest_key=key, digest=digest),
    )
    with pytest.raises(InvalidInput, match="no validation images, which int8 needs"):
        quantize(store, tiny.models[0].id, threads=1)
