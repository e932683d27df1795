"""How a replica loads its models."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray import cloudpickle

from autovision.errors import InvalidInput
from autovision.model.predictor import Prediction, Predictor
from autovision.registry import parity, ready, runtimes
from autovision.registry import prepare as preparing
from autovision.serving.server import CompiledLoader
from autovision.store.local import LocalStore

if TYPE_CHECKING:
    from tests.unit.conftest import History


def folder_with(tiny: History, folder: Path) -> LocalStore:
    """A store that other processes can open, too."""
    store = LocalStore(folder)
    for key in tiny.store.list():
        store.put_new(key, tiny.store.get(key).data)
    return store


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_a_replica_measures_for_its_first_model_only(
    tiny: History, no_cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[tuple[str, str, bool]] = []

    def noted(store: Any, model: str, *, threads: int | None, runtime: str, measure: bool) -> Predictor:
        loaded.append((model, runtime, measure))
        return Predictor.load(store, model, threads=threads)

    def prepared(uri: str, model: str, threads: int, runtime: str, *, measure: bool) -> bool:
        loaded.append((model, "prepared", measure))
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
        (first, "prepared", True),
        (first, "auto", True),
        (second, "prepared", False),
        (second, "auto", False),
        (first, "prepared", True),
        (first, "eager-f32", True),
    ]


LOADS = """
import sys
from pathlib import Path
from autovision.serving.server import CompiledLoader
from autovision.store.local import LocalStore
root, model, runtime, image = sys.argv[1:]
loaded = CompiledLoader(1, runtime)(LocalStore(Path(root)), model)
answer = loaded.predict([Path(image).read_bytes()])[0]
print(answer.label, *answer.probabilities.values(), "torch" in sys.modules)
"""


def test_a_model_that_is_ready_answers_the_same_without_pytorch(
    tiny: History, no_cache: None, tmp_path: Path, png: Callable[[int], bytes]
) -> None:
    store, model = folder_with(tiny, tmp_path / "store"), tiny.models[1].id
    image = tmp_path / "one.png"
    image.write_bytes(png(200))
    assert ready.load(store, model, 1, "openvino-f32") is None, "nobody made it ready"
    for runtime in ("openvino-f32", "onnx-f32"):
        here = None
        if runtime == "onnx-f32":  # the other is made ready by the process that wants it
            here = runtimes.load(store, model, threads=1, runtime=runtime)
        command = [sys.executable, "-c", LOADS, str(store.root), model, runtime, str(image)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        here = here or runtimes.load(store, model, threads=1, runtime=runtime)
        (answer,) = here.predict([image.read_bytes()])
        assert isinstance(answer, Prediction)
        assert said == [str(answer.label), *map(str, answer.probabilities.values()), "False"]


def test_what_serves_for_now_is_ready_until_somebody_measures(
    tiny: History, no_cache: None, tmp_path: Path
) -> None:
    store, model = folder_with(tiny, tmp_path / "store"), tiny.models[1].id
    assert runtimes.load(store, model, threads=1, measure=False).runtime == "openvino"
    found = ready.load(store, model, 1, "auto")
    assert found is not None and found.runtime == "openvino"
    assert ready.load(store, model, 1, "auto", measure=True) is None
    assert ready.load(store, model, 1, "evaluated", measure=True) is None, "that is another wish"
    runtimes.load(store, model, threads=1, runtime="evaluated")
    assert ready.load(store, model, 1, "evaluated", measure=True) is not None, "there is nothing to measure"


def test_what_is_ready_is_so_for_that_wish_and_model_alone(
    tiny: History, no_cache: None, tmp_path: Path
) -> None:
    store, (first, second) = folder_with(tiny, tmp_path / "store"), tiny.models
    runtimes.load(store, first.id, threads=1, runtime="openvino-f32")
    found = ready.load(store, first.id, 1, "openvino-f32")
    assert found is not None and found.model.id == first.id
    assert ready.load(store, first.id, 2, "openvino-f32") is None
    assert ready.load(store, first.id, 1, "auto") is None
    assert ready.load(store, second.id, 1, "openvino-f32") is None
    # A verdict on int8 that came since may change the choice.
    store.put_new(f"models/{first.id}/int8/somewhere.json", b"{}")
    assert ready.load(store, first.id, 1, "openvino-f32") is None


def test_a_note_whose_network_is_gone_is_as_good_as_none(
    tiny: History, no_cache: None, tmp_path: Path
) -> None:
    store, model = folder_with(tiny, tmp_path / "store"), tiny.models[0].id
    runtimes.load(store, model, threads=1, runtime="openvino-f32")
    for network in (tmp_path / "cache").rglob("*.xml"):
        network.unlink()
    assert ready.load(store, model, 1, "openvino-f32") is None
    assert CompiledLoader(1, "openvino-f32")(store, model).model.id == model


def test_a_first_model_that_does_not_load_leaves_the_measuring_to_the_next(
    tiny: History, no_cache: None, monkeypatch: pytest.MonkeyPatch
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
    assert measured == [True]


def test_a_runtime_that_does_not_exist_is_refused_before_anything_starts() -> None:
    with pytest.raises(InvalidInput, match="no runtime 'onnx'"):
        CompiledLoader(1, "onnx")


def test_what_was_prepared_elsewhere_is_not_compared_again(
    tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, model = folder_with(tiny, tmp_path / "store"), tiny.models[1].id
    assert preparing.prepare(store.uri, model, 1, "openvino-f32", measure=False)
    monkeypatch.setattr(parity, "compare", lambda *args: pytest.fail("it was compared again"))
    assert runtimes.load(store, model, threads=1, runtime="openvino-f32", measure=False).runtime == "openvino"
    assert not preparing.prepare(store.uri, "nobody", 1, "auto", measure=False)


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="only Linux has it")
def test_whoever_prepares_while_models_answer_lets_all_others_go_first() -> None:
    """Also the threads that its libraries start."""
    look = (
        "import os, threading; from autovision.registry import prepare; prepare._stand_back(prepare.IDLE); found = []; "
        "look = lambda: found.append((os.sched_getscheduler(0) == os.SCHED_IDLE, os.nice(0))); "
        "look(); thread = threading.Thread(target=look); thread.start(); thread.join(); print(found)"
    )
    said = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[(True, 19), (True, 19)]"


def test_where_callers_leave_no_time_a_model_is_made_ready_all_the_same(
    tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparing, "_IDLE_S", 0.01)
    store, model = folder_with(tiny, tmp_path / "store"), tiny.models[1].id
    assert preparing.prepare(store.uri, model, 1, "openvino-f32", measure=False)
