"""From bytes to answers."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from autovision.dataset import manifest
from autovision.dataset.loader import load_pixels
from autovision.errors import CorruptObject, InvalidImage, NotFound
from autovision.model import bundle, predictor
from autovision.model.compiled import OpenVinoModule
from autovision.model.inference import openvino_file
from autovision.model.predictor import Prediction, Predictor, Scorer, sigmoid, softmax
from autovision.model.version import read_version
from autovision.records.datasets import Split
from autovision.records.runtimes import Lanes
from autovision.store import keys

if TYPE_CHECKING:
    from tests.unit.conftest import History, Scenes


@pytest.fixture(scope="module")
def served(tiny: History) -> Predictor:
    return Predictor.load(tiny.store, tiny.models[1].id, threads=2)


@pytest.fixture(scope="module")
def digests(tiny: History) -> list[str]:
    rows = manifest.read(tiny.store, tiny.versions[1])
    return [row.image for row in rows if row.split is Split.TEST]


@pytest.fixture(scope="module")
def files(tiny: History, digests: list[str]) -> list[bytes]:
    return [tiny.store.get(keys.image(digest)).data for digest in digests]


def answers(found: list[Prediction | InvalidImage]) -> list[Prediction]:
    assert not any(isinstance(each, InvalidImage) for each in found)
    return [each for each in found if isinstance(each, Prediction)]


def test_bytes_are_answered_as_training_and_evaluation_see_the_image(
    tiny: History, served: Predictor, files: list[bytes], digests: list[str]
) -> None:
    pixels = load_pixels(tiny.store, digests, served.model.preprocessing, threads=2)
    probabilities, embeddings = served.score(pixels)
    found = answers(served.predict(files))
    assert len(files) > predictor.MAX_BATCH
    np.testing.assert_array_equal([list(each.probabilities.values()) for each in found], probabilities)
    np.testing.assert_array_equal([each.embedding for each in found], embeddings)


def test_an_answer_names_classes_and_sums_to_one(served: Predictor, files: list[bytes]) -> None:
    for each in answers(served.predict(files[:5])):
        assert list(each.probabilities) == list(served.model.classes)
        assert sum(each.probabilities.values()) == pytest.approx(1)
        assert each.label == max(each.probabilities, key=each.probabilities.__getitem__)
        assert each.embedding.dtype == np.float32


def test_probabilities_are_those_of_the_divided_logits(
    tiny: History, served: Predictor, digests: list[str]
) -> None:
    pixels = load_pixels(tiny.store, digests[:7], served.model.preprocessing, threads=1)
    logits, _ = served._scorer(pixels)
    expected = softmax(logits / served.model.temperature)
    np.testing.assert_allclose(served.score(pixels)[0], expected)
    np.testing.assert_array_equal(expected.argmax(1), logits.argmax(1))


def test_one_image_is_answered_as_it_is_among_others(served: Predictor, files: list[bytes]) -> None:
    (alone,) = answers(served.predict(files[:1]))
    among = answers(served.predict(files[:9]))[0]
    np.testing.assert_allclose(
        list(alone.probabilities.values()), list(among.probabilities.values()), atol=1e-5
    )


def test_a_bad_image_gives_its_error_in_its_place(served: Predictor, files: list[bytes]) -> None:
    good = answers(served.predict([files[0], files[1], files[3]]))
    mixed = served.predict([files[0], b"no image", files[1], files[2][:200], b"", files[3]])
    assert [isinstance(each, InvalidImage) for each in mixed] == [False, True, False, True, True, False]
    for mine, theirs in zip((each for each in mixed if isinstance(each, Prediction)), good, strict=True):
        np.testing.assert_allclose(mine.embedding, theirs.embedding, atol=1e-4)
    assert [type(each) for each in served.predict([b"", b"x"])] == [InvalidImage, InvalidImage]
    assert isinstance(served.predict([b"x"])[0], InvalidImage)
    assert served.predict([]) == []


def test_images_of_other_modes_and_sizes_are_answered(served: Predictor) -> None:
    def encoded(mode: str, size: tuple[int, int], kind: str) -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size, 100).save(buffer, kind)
        return buffer.getvalue()

    odd = [encoded("L", (300, 20), "PNG"), encoded("I;16", (9, 9), "PNG"), encoded("CMYK", (50, 80), "JPEG")]
    assert len(answers(served.predict(odd))) == 3


@pytest.fixture(scope="module")
def shared(tiny: History) -> Predictor:
    """One whose threads share images out among them."""
    version = read_version(tiny.store, tiny.models[1].id)
    prep = version.preprocessing
    file = openvino_file(bundle.load_network(tiny.store, version), (prep.height, prep.width))
    whole = OpenVinoModule(file, "f32", 3)
    found = Predictor.warm(version, Scorer(whole), 3, Scorer(whole.side_by_side(3)))
    assert found._each is not None
    return found


@pytest.mark.parametrize("number", [1, 2, 3, 4, 11])
def test_images_that_are_shared_out_are_answered_in_their_places(
    tiny: History, shared: Predictor, files: list[bytes], number: int
) -> None:
    alone = Predictor.load(tiny.store, shared.model.id, threads=1)
    for bad in (None, 0, number - 1):
        images = [b"text" if at == bad else data for at, data in enumerate(files[:number])]
        for one, many in zip(
            (alone.predict([each])[0] for each in images), shared.predict(images), strict=True
        ):
            assert type(one) is type(many)
            if isinstance(one, Prediction) and isinstance(many, Prediction):
                np.testing.assert_allclose(
                    list(one.probabilities.values()), list(many.probabilities.values()), atol=1e-2
                )
                np.testing.assert_allclose(one.embedding, many.embedding, atol=1e-1)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("free", [True, False])
def test_a_lane_answers_like_one_thread_in_any_form(
    tiny: History, shared: Predictor, files: list[bytes], number: int, free: bool
) -> None:
    in_lanes = Predictor.warm(
        shared.model, shared._scorer, 3, shared._each, Lanes(number=3, few=2, wide=True)
    )
    assert (in_lanes.lanes, in_lanes.few, in_lanes.most) == (3, 2, 2)
    asked: list[bool] = []

    def widen() -> bool:
        asked.append(free)
        return free

    images = [*files[: number - 1], b"text"] if number > 1 else files[:1]
    alone = Predictor.load(tiny.store, shared.model.id, threads=1)
    for one, other in zip(alone.predict(images), in_lanes.predict_in_lane(images, widen), strict=True):
        assert type(one) is type(other)
        if isinstance(one, Prediction) and isinstance(other, Prediction):
            assert one.label == other.label
            np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-1)
    assert asked == ([free] if number == 1 else []), "several images are the lane's own"


def test_without_a_form_for_one_thread_there_are_no_lanes(shared: Predictor) -> None:
    lanes = Lanes(number=3, few=2, wide=True)
    assert Predictor.warm(shared.model, shared._scorer, 3, None, lanes).lanes == 1
    assert shared.lanes == 1, "nor without a measurement"


def test_nothing_is_shared_out_where_threads_alone_answer_otherwise(tiny: History, shared: Predictor) -> None:
    class Wrong(Scorer):
        def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            logits, embeddings = super().__call__(pixels)
            return logits + 0.1, embeddings

    assert shared._each is not None
    wrong = Wrong(shared._each._compiled)
    assert Predictor.warm(shared.model, shared._scorer, 3, wrong)._each is None


def test_many_threads_get_their_own_answers(served: Predictor, files: list[bytes]) -> None:
    expected = [answers(served.predict([data]))[0].embedding for data in files[:8]]
    wrong: list[int] = []

    def ask(offset: int) -> None:
        for turn in range(12):
            which = [(offset + turn + i) % 8 for i in range(1 + turn % 3)]
            for index, each in zip(which, answers(served.predict([files[i] for i in which])), strict=True):
                if not np.allclose(each.embedding, expected[index], atol=1e-4):
                    wrong.append(index)

    threads = [threading.Thread(target=ask, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_softmax_holds_for_large_logits() -> None:
    found = softmax(np.array([[1e4, 0.0], [-1e4, -1e4]], np.float32))
    np.testing.assert_allclose(found, [[1.0, 0.0], [0.5, 0.5]])


def test_what_cannot_be_loaded_says_why(tiny: History) -> None:
    store, model = tiny.copy(), tiny.models[0]
    with pytest.raises(NotFound, match="no model 'nobody'"):
        Predictor.load(store, "nobody")
    key = keys.model_file(model.id, bundle.WEIGHTS_FILE, model.files[bundle.WEIGHTS_FILE])
    data = store.get(key).data
    store.delete(key)
    store.put_new(key, data[:-1] + b"?")
    with pytest.raises(CorruptObject, match="does not match its digest"):
        Predictor.load(store, model.id)


# --------------------------------------------------------------------------------------- several classes


def test_any_number_of_classes_is_answered_each_by_its_own_probability(scenes: Scenes) -> None:
    served = Predictor.load(scenes.store, scenes.model.id, threads=2)
    files = [path.read_bytes() for path, _ in scenes.new]
    answers = served.predict([*files, b"no image"])
    assert isinstance(answers.pop(), InvalidImage)
    for answer in answers:
        assert isinstance(answer, Prediction)
        assert list(answer.probabilities) == ["blue", "red", "striped"]
        assert answer.label == tuple(name for name, p in answer.probabilities.items() if p > 0.5)
    said = [answer.label for answer in answers if isinstance(answer, Prediction)]
    assert {len(label) for label in said} == {0, 1, 2, 3}
    assert np.mean([label == marks for label, (_, marks) in zip(said, scenes.new, strict=True)]) > 0.9


def test_sigmoid_holds_for_large_logits() -> None:
    with np.errstate(over="raise"):
        p = sigmoid(np.array([[-1e4, 0.0, 1e4]], np.float32))
    np.testing.assert_allclose(p, [[0, 0.5, 1]])
