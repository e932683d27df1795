"""Which runtime serves: by speed that was measured, among those that agree with PyTorch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from autovision.dataset import manifest
from autovision.errors import InvalidInput, NotFound
from autovision.model import bundle, lanes, runtimes
from autovision.model.predictor import Prediction, Predictor
from autovision.model.version import read_file
from autovision.records.datasets import Split
from autovision.records.runtimes import Bound, Lanes, LaneTimings, Runtime, Timing
from autovision.registry import runtimes as serving
from autovision.registry.runtimes import OnThisNode, RuntimeRefused, load, ranked
from autovision.store import MemoryStore, keys

if TYPE_CHECKING:
    from tests.unit.conftest import History


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    return tiny.copy()


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[Runtime, Timing]]:
    """What the runtimes are said to take, in milliseconds of one image and a batch; each time that it is asked."""
    asked: list[dict[Runtime, Timing]] = []

    def timings(compiled: dict[Runtime, Any], size: tuple[int, int]) -> dict[Runtime, Timing]:
        known: dict[Runtime, Timing] = {
            "openvino-f32": Timing(one_ms=10, batch_ms=100),
            "openvino-bf16": Timing(one_ms=10, batch_ms=100),
            "onnx-f32": Timing(one_ms=5, batch_ms=50),
            "eager-f32": Timing(one_ms=7, batch_ms=70),
        }
        asked.append({name: known[name] for name in compiled})
        return asked[-1]

    monkeypatch.setattr(runtimes, "timings", timings)
    return asked


def took(**milliseconds: float) -> dict[Runtime, Timing]:
    """openvino_f32=3 is 3 ms for one image, and 30 for a batch."""
    return {
        name.replace("_", "-"): Timing(one_ms=each, batch_ms=10 * each)  # type: ignore[misc]
        for name, each in milliseconds.items()
    }


@pytest.mark.parametrize(
    ("timings", "order"),
    [
        (took(openvino_f32=10, onnx_f32=9.5, eager_f32=30), ["openvino-f32", "onnx-f32", "eager-f32"]),
        (took(openvino_f32=10, onnx_f32=9.0, eager_f32=30), ["onnx-f32", "openvino-f32", "eager-f32"]),
        (took(openvino_f32=10, onnx_f32=50, eager_f32=5), ["eager-f32", "openvino-f32", "onnx-f32"]),
        (took(onnx_f32=50, eager_f32=45), ["eager-f32", "onnx-f32"]),
        (
            took(openvino_f32=10, onnx_f32=9.5, openvino_bf16=6),
            ["openvino-bf16", "openvino-f32", "onnx-f32"],  # also where bf16 is left out
        ),
    ],
)
def test_another_runtime_takes_the_place_of_the_evaluated_one_if_it_is_faster_by_a_tenth(
    timings: dict[Runtime, Timing], order: list[str]
) -> None:
    assert ranked(timings, "openvino-f32") == order


def test_the_fastest_that_agrees_serves_and_is_measured_once(
    tiny: History, store: MemoryStore, measured: list[dict[Runtime, Timing]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.models[1]
    first = load(store, model.id, threads=1)
    assert (first.runtime, len(measured)) == ("onnx", 1)
    kept = [key for key in store.list() if "/parity/" in key or key.startswith("runtimes/")]
    assert len(kept) == 2
    monkeypatch.setattr(serving.parity, "compare", lambda *args: pytest.fail("it was compared again"))
    assert load(store, model.id, threads=1).runtime == "onnx"
    assert len(measured) == 1


def test_another_model_of_the_structure_needs_no_measuring_but_a_comparison_of_its_own(
    tiny: History, store: MemoryStore, measured: list[dict[Runtime, Timing]]
) -> None:
    model = tiny.models[1]
    files = {name: read_file(store, model, name) for name in model.files}
    bundle.publish(store, model.with_(id="colours-m-other"), files)
    for each in (model.id, "colours-m-other"):
        assert load(store, each, threads=1).runtime == "onnx"
        assert len(list(store.list(keys.runtime_parities(each)))) == 1
    assert len(measured) == 1
    load(store, tiny.models[0].id, threads=2)
    assert len(measured) == 2, "another structure, or another kind of node"


def test_whoever_serves_meanwhile_does_not_measure(
    tiny: History, store: MemoryStore, measured: list[dict[Runtime, Timing]]
) -> None:
    model = tiny.models[1]
    assert load(store, model.id, threads=1, measure=False).runtime == "openvino"
    assert measured == []
    load(store, model.id, threads=1)
    assert load(store, model.id, threads=1, measure=False).runtime == "onnx", "what is known is used"


def test_lanes_are_measured_once_for_a_structure_and_the_runtime_that_serves(
    tiny: History, store: MemoryStore, measured: list[dict[Runtime, Timing]], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed: list[Any] = []

    def timings(wide: Any, narrow: Any, number: int, size: tuple[int, int], *, most_s: float) -> LaneTimings:
        timed.append((wide.runtime, narrow.runtime, number, size, most_s > 0))
        return LaneTimings(lanes=number, wide_ms=5, one_ms=8, lane_ms={1: 4, 2: 4}, batch_ms=4)

    monkeypatch.setattr(lanes, "timings", timings)
    model = tiny.models[1]
    files = {name: read_file(store, model, name) for name in model.files}
    bundle.publish(store, model.with_(id="colours-m-other"), files)
    size = (model.preprocessing.height, model.preprocessing.width)
    here = OnThisNode(store, model, 2)
    assert here.lanes("onnx-f32", measure=False) == (Lanes(number=2, few=1, most=1, wide=True), False)
    assert timed.pop() == ("onnx", "onnx", 2, size, False)
    for each in (model.id, "colours-m-other"):
        load(store, each, threads=2)
    assert timed == [("onnx", "onnx", 2, size, True)]
    assert here.lanes("onnx-f32", measure=False) == (Lanes(number=2, few=1, most=1, wide=True), True)
    assert OnThisNode(store, model, 1).lanes("onnx-f32") == (None, True), "one thread is one lane"
    assert here.lanes("eager-f32") == (None, True)
    assert len(timed) == 1


def test_what_is_served_is_what_evaluation_says_within_the_bound(
    tiny: History, store: MemoryStore, measured: list[dict[Runtime, Timing]]
) -> None:
    model, version = tiny.models[1], tiny.versions[1]
    rows = [row for row in manifest.read(store, version) if row.split is Split.TEST]
    images = [store.get(keys.image(row.image)).data for row in rows]
    served = load(store, model.id, threads=1).predict(images)
    for one, other in zip(served, Predictor.load(store, model.id, threads=1).predict(images), strict=True):
        assert isinstance(one, Prediction) and isinstance(other, Prediction)
        assert one.label == other.label
        np.testing.assert_allclose(
            list(one.probabilities.values()), list(other.probabilities.values()), atol=0.02
        )


class Liar:
    """Answers something else."""

    runtime = "liar"

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled

    def __call__(self, pixels: np.ndarray) -> list[np.ndarray]:
        logits, embedding = self.compiled(pixels)
        return [-logits, embedding]


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime, the fastest by what `measured` says, answers the opposite."""
    build = runtimes.build

    def built(module: Any, size: Any, runtime: Runtime, threads: int, **more: Any) -> Any:
        compiled = build(module, size, runtime, threads, **more)
        return Liar(compiled) if runtime == "onnx-f32" else compiled

    monkeypatch.setattr(runtimes, "build", built)


@pytest.mark.usefixtures("lying", "measured")
def test_a_runtime_that_disagrees_is_left_out_with_a_warning_that_says_by_how_much(
    tiny: History, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger=serving.__name__):
        assert load(store, tiny.models[1].id, threads=1).runtime == "eager", "the next in speed"
    assert "runtime onnx-f32 is left out" in caplog.text
    assert "of 32 images, probabilities off by up to" in caplog.text


@pytest.mark.usefixtures("lying")
def test_a_runtime_that_was_asked_for_and_disagrees_is_refused(tiny: History, store: MemoryStore) -> None:
    with pytest.raises(RuntimeRefused, match=r"'onnx-f32' does not agree with PyTorch .* use auto"):
        load(store, tiny.models[1].id, threads=1, runtime="onnx-f32")


@pytest.mark.usefixtures("measured")
def test_what_cannot_run_the_network_is_left_out(
    tiny: History, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = runtimes.build

    def built(module: Any, size: Any, runtime: Runtime, threads: int, **more: Any) -> Any:
        if runtime != "eager-f32":
            raise RuntimeError("no such operator")
        return build(module, size, runtime, threads, **more)

    monkeypatch.setattr(runtimes, "build", built)
    model = tiny.models[1]
    assert load(store, model.id, threads=1).runtime == "eager"
    speeds = OnThisNode(store, model, 1).speeds(measure=False)
    assert speeds is not None and speeds.failed["onnx-f32"] == "RuntimeError: no such operator"
    with pytest.raises(RuntimeRefused, match=r"cannot run model .* no such operator"):
        load(store, model.id, threads=1, runtime="onnx-f32")
    assert load(store, model.id, threads=1, runtime="evaluated").runtime == "eager", "as in the evaluation"


def test_a_runtime_can_be_asked_for(tiny: History, store: MemoryStore) -> None:
    model = tiny.models[1].id
    for wanted, found in (("eager-f32", "eager"), ("onnx-f32", "onnx"), ("evaluated", "openvino")):
        assert load(store, model, threads=1, runtime=wanted).runtime == found
    with pytest.raises(InvalidInput, match="no runtime 'onnx'"):
        load(store, model, threads=1, runtime="onnx")
    with pytest.raises(InvalidInput, match="needs a GPU"):
        load(store, model, threads=1, runtime="torch-f32")
    with pytest.raises(RuntimeRefused, match=r"no int8 form .*autovision model quantize"):
        load(store, model, threads=1, runtime="openvino-int8")
    with pytest.raises(NotFound, match="no model 'nobody'"):
        load(store, "nobody")


@pytest.mark.usefixtures("measured")
def test_what_cannot_be_compared_does_not_take_the_place_of_what_was_evaluated(
    tiny: History, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    for version in tiny.versions:
        store.delete(keys.dataset_version(version.name, version.version))
    with caplog.at_level(logging.WARNING, logger=serving.__name__):
        assert load(store, tiny.models[1].id, threads=1).runtime in ("openvino", "eager")
    assert "never compared with PyTorch" in caplog.text
    with pytest.raises(RuntimeRefused, match="no images to compare on"):
        load(store, tiny.models[1].id, threads=1, runtime="onnx-f32")


def test_the_evaluated_runtime_serves_with_a_warning_if_it_is_asked_for_and_disagrees(
    tiny: History, store: MemoryStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Bound(max_difference=0.0, agreement=1.0, embedding_shift=0.0)
    monkeypatch.setattr(runtimes, "BOUNDS", {"f32": nothing, "bf16": nothing})
    with caplog.at_level(logging.WARNING, logger=serving.__name__):
        assert load(store, tiny.models[1].id, threads=1, runtime="evaluated").runtime == "openvino"
    assert "was evaluated with: the same answer for" in caplog.text


def test_speeds_are_really_measured(tiny: History, store: MemoryStore) -> None:
    model = tiny.models[1]
    speeds = OnThisNode(store, model, 1).speeds()
    assert speeds is not None
    assert set(speeds.timings) == set(runtimes.candidates(model.precision))
    assert all(0 < each.one_ms < each.batch_ms for each in speeds.timings.values())
