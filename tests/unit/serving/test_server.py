"""How a replica loads its models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from ray import cloudpickle

from autovision.errors import InvalidInput
from autovision.model.predictor import Predictor
from autovision.registry import runtimes
from autovision.serving.server import load_compiled

if TYPE_CHECKING:
    from tests.unit.conftest import History


def test_a_replica_measures_for_its_first_model_only(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[tuple[str, str, bool]] = []

    def noted(store: Any, model: str, *, threads: int | None, runtime: str, measure: bool) -> Predictor:
        loaded.append((model, runtime, measure))
        return Predictor.load(store, model, threads=threads)

    monkeypatch.setattr(runtimes, "load", noted)
    first, second = (model.id for model in tiny.models)
    load = load_compiled(1)
    assert load(tiny.store, first).model.id == first
    assert load(tiny.store, second).model.id == second
    # Each replica gets a copy, which has loaded nothing yet.
    cloudpickle.loads(cloudpickle.dumps(load_compiled(1, "eager-f32")))(tiny.store, first)
    assert loaded == [(first, "auto", True), (second, "auto", False), (first, "eager-f32", True)]


def test_a_first_model_that_does_not_load_leaves_the_measuring_to_the_next(
    tiny: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[bool] = []
    load_here = runtimes.load

    def noted(*args: Any, measure: bool, **more: Any) -> Predictor:
        measured.append(measure)
        return load_here(*args, measure=measure, **more)

    monkeypatch.setattr(runtimes, "load", noted)
    load = load_compiled(1)
    with pytest.raises(Exception, match="no model 'nobody'"):
        load(tiny.copy(), "nobody")
    load(tiny.copy(), tiny.models[0].id)
    assert measured == [True, True]


def test_a_runtime_that_does_not_exist_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidInput, match="no runtime 'onnx'"):
        load_compiled(1, "onnx")
