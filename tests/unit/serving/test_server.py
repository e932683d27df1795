"""How a replica loads its models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray import cloudpickle

from autovision.errors import InvalidInput
from autovision.model.predictor import Predictor
from autovision.registry import parity, runtimes
from autovision.registry import prepare as preparing
from autovision.serving.server import CompiledLoader
from autovision.store.local import LocalStore

if TYPE_CHECKING:
    from tests.unit.conftest import History


def test_a_replica_measures_for_its_first_model_only(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, str, bool]] = []

    def noted(store: Any, model: str, *, threads: int | None, runtime: str, measure: bool) -> Predictor:
        loaded.append((model, runtime, measure))
        return Predictor.load(store, model, threads=threads)

    def prepared(uri: str, model: str, threads: int, runtime: str) -> bool:
        loaded.append((model, "prepared", threads == 1 and runtime == "auto"))
        return True

    monkeypatch.setattr(runtimes, "load", noted)
    monkeypatch.setattr(preparing, "prepare", prepared)
    first, second = (model.id for model in tiny.models)
    load = CompiledLoader(1)
    assert load(tiny.store, first).model.id == first
    assert load(tiny.store, second).model.id == second
    # Each replica gets a copy, which has loaded nothing yet.
    cloudpickle.loads(cloudpickle.dumps(CompiledLoader(1, "eager-f32")))(tiny.store, first)
    assert loaded == [
        (first, "auto", True),
        (second, "prepared", True),
        (second, "auto", False),
        (first, "eager-f32", True),
    ]


def test_a_first_model_that_does_not_load_leaves_the_measuring_to_the_next(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[bool] = []
    load_here = runtimes.load

    def noted(*args: Any, measure: bool, **more: Any) -> Predictor:
        measured.append(measure)
        return load_here(*args, measure=measure, **more)

    monkeypatch.setattr(runtimes, "load", noted)
    load = CompiledLoader(1)
    with pytest.raises(Exception, match="no model 'nobody'"):
        load(tiny.copy(), "nobody")
    load(tiny.copy(), tiny.models[0].id)
    assert measured == [True, True]


def test_a_runtime_that_does_not_exist_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidInput, match="no runtime 'onnx'"):
        CompiledLoader(1, "onnx")


def test_what_was_prepared_elsewhere_is_not_compared_again(
    tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LocalStore(tmp_path / "store")
    for key in tiny.store.list():
        store.put_new(key, tiny.store.get(key).data)
    model = tiny.models[1].id
    assert preparing.prepare(store.uri, model, 1, "openvino-f32")
    monkeypatch.setattr(parity, "compare", lambda *args: pytest.fail("it was compared again"))
    assert runtimes.load(store, model, threads=1, runtime="openvino-f32", measure=False).runtime == "openvino"
    assert not preparing.prepare(store.uri, "nobody", 1, "auto")
