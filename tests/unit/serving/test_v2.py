"""The inference protocol over real HTTP, asked by Triton's own client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

from autovision.image import load
from autovision.model.predictor import Prediction, Predictor
from autovision.records.rollouts import RolloutPolicy
from autovision.serving.engine import Engine, EngineConfig
from autovision.serving.limits import Limits
from autovision.serving.v2 import COMPRESS_FROM_BYTES
from autovision.store import captures
from tests.unit.serving.worlds import World, running, until


def client_of(url: str, **options: Any) -> Any:
    return triton.InferenceServerClient(url.partition("//")[2], **options)


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    with client_of(url) as client:
        yield client


def image_input(*images: bytes, binary: bool = True, column: bool = False) -> list[Any]:
    shape = [len(images), 1] if column else [len(images)]
    tensor = triton.InferInput("image", shape, "BYTES")
    tensor.set_data_from_numpy(np.array(images, np.object_).reshape(shape), binary_data=binary)
    return [tensor]


def outputs(*names: str, **options: Any) -> list[Any]:
    return [triton.InferRequestedOutput(name, **options) for name in names]


def fault(call: Any, *arguments: Any, **options: Any) -> tuple[int, str]:
    with pytest.raises(InferenceServerException) as caught:
        call(*arguments, **options)
    return int(caught.value.status()), str(caught.value.message())


def test_health_metadata_and_index(client: Any, url: str, world: World) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("shades") and client.is_model_ready("shades", "m1")
    assert not client.is_model_ready("shapes") and not client.is_model_ready("shades", "m2")
    ready = httpx.get(f"{url}/v2/models/shades/ready", trust_env=False)
    assert ready.json() == {"name": "shades", "ready": True}
    server = client.get_server_metadata()
    assert server["name"] == "autovision" and "binary_tensor_data" in server["extensions"]
    model = client.get_model_metadata("shades")
    assert (model["name"], model["versions"]) == ("shades", ["m1"])
    assert {each["name"]: (each["datatype"], each["shape"]) for each in model["inputs"]} == {
        "image": ("BYTES", [-1]),
        "pixels": ("UINT8", [-1, 8, 8, 3]),
    }
    assert {each["name"]: each["shape"] for each in model["outputs"]}["probabilities"] == [-1, 2]
    assert model["parameters"]["classes"] == "bright|dark"
    assert client.get_model_metadata("shades", "m1") == model
    (entry,) = client.get_model_repository_index()
    assert entry == {"name": "shades", "version": "m1", "state": "READY", "reason": ""}
    world.promote("m2")
    assert client.is_model_ready("shades", "m2") and not client.is_model_ready("shades", "m1")


def test_images_are_answered_and_captured(client: Any, world: World, png: Any) -> None:
    result = client.infer(
        "shades",
        image_input(png(200), png(3)),
        request_id="seven",
        headers={"X-Autovision-Meta-Line": "a"},
    )
    said = result.get_response()
    assert (said["model_name"], said["model_version"], said["id"]) == ("shades", "m1", "seven")
    assert result.as_numpy("label").tolist() == [b"bright", b"dark"]
    bright = np.array([200, 3]) / 255
    probabilities = result.as_numpy("probabilities")
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, np.stack([bright, 1 - bright], 1), atol=1e-6)
    assert result.as_numpy("embedding") is None
    assert world.engine.flush(5)
    stored = captures.read(world.store, "shades").captures
    assert [(capture.label, capture.metadata) for capture in stored] == [
        ("bright", {"line": "a"}),
        ("dark", {"line": "a"}),
    ]


def test_outputs_are_given_as_they_are_asked_for(client: Any, world: World, png: Any) -> None:
    wanted = [
        *outputs("embedding", binary_data=False),
        *outputs("label", "request_id"),
        *outputs("probabilities", class_count=1),
    ]
    result = client.infer("shades", image_input(png(255), column=True), outputs=wanted, model_version="m1")
    assert [output["name"] for output in result.get_response()["outputs"]] == [
        *("embedding", "label", "request_id", "probabilities")
    ]
    assert result.as_numpy("embedding").tolist() == [[1.0, 1.0]]
    assert result.as_numpy("probabilities").tolist() == [[b"1.000000:0:bright"]]
    assert world.engine.flush(5)
    (capture,) = captures.read(world.store, "shades").captures
    assert result.as_numpy("request_id").tolist() == [capture.request_id.encode()]


def test_images_in_json_are_base64(client: Any, png: Any) -> None:
    import base64

    texts = [base64.b64encode(png(level)) for level in (200, 3)]
    result = client.infer(
        "shades", image_input(*texts, binary=False), outputs=outputs("label", binary_data=False)
    )
    assert result.as_numpy("label").tolist() == ["bright", "dark"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_requests_and_answers_may_be_compressed(client: Any, url: str, png: Any, algorithm: str) -> None:
    compressed = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
    levels, wanted = list(range(0, 256, 8)), outputs("probabilities", "request_id")
    result = client.infer("shades", image_input(*map(png, levels)), outputs=wanted, **compressed)
    np.testing.assert_allclose(result.as_numpy("probabilities")[:, 0], np.array(levels) / 255, atol=1e-6)
    body, size = triton.InferenceServerClient.generate_request_body(
        image_input(*map(png, levels)), outputs=wanted
    )
    headers = {"inference-header-content-length": str(size), "accept-encoding": f"br, {algorithm};q=0.5"}
    response = httpx.post(f"{url}/v2/models/shades/infer", content=body, headers=headers, trust_env=False)
    assert response.headers["content-encoding"] == algorithm
    assert len(response.content) >= COMPRESS_FROM_BYTES
    small = client.infer("shades", image_input(png(200)), **compressed)
    assert small.as_numpy("label").tolist() == [b"bright"]


def test_a_bare_body_is_one_image(url: str, png: Any) -> None:
    response = httpx.post(
        f"{url}/v2/models/shades/infer",
        content=png(200),
        headers={"Inference-Header-Content-Length": "0"},
        trust_env=False,
    )
    size = int(response.headers["inference-header-content-length"])
    result = triton.InferenceServerClient.parse_response_body(response.content, header_length=size)
    assert result.as_numpy("label").tolist() == [b"bright"]


def test_what_cannot_be_answered_is_told_in_the_protocols_form(client: Any, url: str, png: Any) -> None:
    good = image_input(png())
    assert fault(client.infer, "shapes", good) == (404, "model 'shapes' is not served here; 'shades' is")
    assert fault(client.get_model_metadata, "shapes")[0] == 404
    status, said = fault(client.infer, "shades", good, model_version="m2")
    assert status == 404 and "version 'm2' is not served here; 'm1' is" in said
    status, said = fault(client.infer, "shades", image_input(png(), b"no image"))
    assert status == 422 and said.startswith("image 1 of the request: ")
    status, said = fault(client.infer, "shades", image_input(b"no image"))
    assert status == 422 and "image 0" not in said
    status, said = fault(client.infer, "shades", image_input(png(), png(1, (1001, 1))))
    assert status == 413 and "image 1 of the request" in said
    status, said = fault(client.infer, "shades", image_input(*[png()] * 33))
    assert status == 413 and "33 images, and 32" in said
    status, said = fault(client.infer, "shades", good, outputs=outputs("logits"))
    assert status == 400 and "'logits'" in said
    status, said = fault(client.infer, "shades", image_input(png(1, (1, 1))))
    assert status == 500 and "variance" not in said
    status, said = fault(client.load_model, "shades")
    assert status == 404 and "/v2" in said
    assert client.infer("shades", good).as_numpy("label").tolist() == [b"bright"]
    with httpx.Client(base_url=url, trust_env=False) as http:
        response = http.post(
            "/v2/models/shades/infer", content=b"{}", headers={"inference-header-content-length": "-1"}
        )
        assert (response.status_code, list(response.json())) == (400, ["error"])
        response = http.get("/v2/models/shades/infer")
        assert (response.status_code, list(response.json())) == (405, ["error"])
        response = http.post("/v2/models/shades/infer", content=b"x", headers={"content-encoding": "br"})
        assert (response.status_code, list(response.json())) == (415, ["error"])
        errors = http.get("/v1/model").json()["errors"]
    assert errors["not-served"] == 3 and errors["invalid-image"] == 2


def test_without_a_model_it_is_alive_and_not_ready(serve: Any, world: World, png: Any) -> None:
    url = serve(world)
    with client_of(url) as client:
        assert client.is_server_live() and not client.is_server_ready()
        assert not client.is_model_ready("shades")
        status, said = fault(client.infer, "shades", image_input(png()))
        assert status == 503 and "'shades' has no loaded model" in said
        assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
        world.promote("m1")
        assert client.is_server_ready()
        assert client.infer("shades", image_input(png())).as_numpy("label").tolist() == [b"bright"]


def test_a_batch_does_not_pass_the_queues_bound(
    make_predictor: Any, clock: Any, serve: Any, png: Any
) -> None:
    world = World(make_predictor, clock, max_waiting=4)
    url = serve(world)
    world.promote("m1")
    predictor = world.predictors["m1"]
    predictor.gate.clear()

    def infer(count: int) -> Any:
        with client_of(url) as client:
            return client.infer("shades", image_input(*[png()] * count)).as_numpy("label").tolist()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(infer, 1)
        until(predictor.begun.is_set)
        waiting = pool.submit(infer, 3)
        until(lambda: world.engine.info().waiting == 3)
        status, _ = fault(infer, 2)
        assert status == 503 and world.engine.info().waiting == 3
        predictor.gate.set()
        assert (first.result(), waiting.result()) == ([b"bright"], [b"bright"] * 3)


def test_images_that_two_models_answered_are_asked_about_again(
    make_predictor: Any, clock: Any, serve: Any, png: Any
) -> None:
    world = World(make_predictor, clock, max_batch=2)
    url = serve(world)
    world.promote("m1")
    before = world.predictors["m1"]
    before.gate.clear()

    def infer() -> Any:
        with client_of(url) as client:
            return client.infer("shades", image_input(*[png(200)] * 5))

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(infer)
        # The first two are with m1; the others wait, and are answered by the next model.
        until(before.begun.is_set)
        world.promote("m2")
        before.gate.set()
        result = asked.result()
    assert result.get_response()["model_version"] == "m2"
    assert result.as_numpy("label").tolist() == [b"dark"] * 5, "m2 calls dark what m1 calls bright"
    assert sum(world.predictors["m2"].batches) == 5


def test_during_a_rollout_all_images_of_a_request_go_to_the_same_side(
    url: str, world: World, png: Any
) -> None:
    world.begin("m2", RolloutPolicy(canary=(0.5,)))
    seen = set()
    with client_of(url) as client:
        for number in range(20):
            headers = {"X-Autovision-Key": f"caller-{number}"} if number % 2 else {}
            result = client.infer("shades", image_input(*[png(200)] * 4), headers=headers)
            version = result.get_response()["model_version"]
            label = {"m1": b"bright", "m2": b"dark"}[version]
            assert result.as_numpy("label").tolist() == [label] * 4
            seen.add(version)
        assert seen == {"m1", "m2"}


def test_during_a_rollout_who_names_the_champions_version_gets_its_answers(
    url: str, world: World, png: Any
) -> None:
    world.begin("m2", RolloutPolicy(canary=(0.999999,)))
    with client_of(url) as client:
        for number in range(3):
            headers = {"X-Autovision-Key": f"caller-{number}"}
            named = client.infer("shades", image_input(png(200)), model_version="m1", headers=headers)
            assert named.get_response()["model_version"] == "m1"
            assert named.as_numpy("label").tolist() == [b"bright"]
            other = client.infer("shades", image_input(png(200)), headers=headers)
            assert other.get_response()["model_version"] == "m2"


def test_where_a_challenger_fails_on_an_image_the_champion_answers_the_request(
    url: str, world: World, png: Any
) -> None:
    world.begin("m2", RolloutPolicy(canary=(0.999999,)))
    challenger = world.predictors["m2"]
    judge = challenger._judge

    def picky(data: bytes) -> Any:
        if data == png(77):
            raise ZeroDivisionError
        return judge(data)

    challenger._judge = picky
    with client_of(url) as client:
        result = client.infer("shades", image_input(png(200), png(77), png(3)))
        assert result.get_response()["model_version"] == "m1"
        assert result.as_numpy("label").tolist() == [b"bright", b"dark", b"dark"]
        result = client.infer("shades", image_input(png(200), png(3)))
        assert result.get_response()["model_version"] == "m2"
    text = httpx.get(f"{url}/metrics", trust_env=False).text
    assert 'autovision_requests_total{arm="canary",kind="internal",model="m2",replica="local"} 1.0' in text
    assert 'autovision_requests_total{arm="canary",kind="ok",model="m2",replica="local"} 4.0' in text


def test_a_caller_may_allow_less_time(make_predictor: Any, clock: Any, serve: Any, png: Any) -> None:
    world = World(make_predictor, clock)
    url = serve(world)
    world.promote("m1")
    world.predictors["m1"].gate.clear()
    with client_of(url) as client:
        status, said = fault(client.infer, "shades", image_input(png()), timeout=50_000)
    assert status == 504 and "0.05 s" in said
    world.predictors["m1"].gate.set()


def test_any_number_of_classes(make_predictor: Any, clock: Any, marks: Any, serve: Any, png: Any) -> None:
    world = World(make_predictor, clock)
    world.predictors["marks"] = marks
    url = serve(world)
    world.promote("marks")
    with client_of(url) as client:
        result = client.infer("shades", image_input(png(128), png(250)))
    assert result.as_numpy("label").tolist() == [b"bright|dark", b"bright"]


# -------------------------------------------------------------------------------------------- a real model


@pytest.fixture(scope="module")
def real(tiny: Any) -> Iterator[tuple[str, Predictor]]:
    """A server that is pinned to a real model, and that model."""
    model = tiny.models[0].id
    predictor = Predictor.load(tiny.store, model, threads=1)
    engine = Engine(EngineConfig(model=model), tiny.store, lambda store, model: predictor)
    with running(engine, limits=Limits(max_images=16)) as url:
        until(lambda: engine.info().model == model)
        yield url, predictor


def photos(n: int) -> list[Image.Image]:
    draw = np.random.default_rng(7)
    return [
        Image.fromarray(draw.integers(0, 256, (70 + 9 * i, 90 - 5 * i, 3), dtype=np.uint8)) for i in range(n)
    ]


def encoded(photo: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, form)
    return buffer.getvalue()


def test_pixels_give_what_their_images_give(real: tuple[str, Predictor]) -> None:
    url, predictor = real
    files = [encoded(photo, "PNG") for photo in photos(5)]
    pixels = np.stack([load(data, predictor.model.preprocessing) for data in files])
    tensor = triton.InferInput("pixels", list(pixels.shape), "UINT8")
    wanted = outputs("probabilities", "embedding", "label", "request_id")
    offline = predictor.predict(files)
    assert all(isinstance(said, Prediction) for said in offline)
    with client_of(url) as client:
        of_images = client.infer(predictor.model.id, image_input(*files), outputs=wanted)
        for binary in (True, False):
            tensor.set_data_from_numpy(pixels, binary_data=binary)
            of_pixels = client.infer(predictor.model.id, [tensor], outputs=wanted)
            for name in ("probabilities", "embedding"):
                np.testing.assert_allclose(of_pixels.as_numpy(name), of_images.as_numpy(name), atol=1e-5)
            assert of_pixels.as_numpy("label").tolist() == of_images.as_numpy("label").tolist()
            assert of_pixels.as_numpy("request_id").tolist() == [b""] * 5
    for row, said in zip(of_images.as_numpy("probabilities"), offline, strict=True):
        assert isinstance(said, Prediction)
        np.testing.assert_allclose(row, list(said.probabilities.values()), atol=1e-5)


def test_pixels_of_another_size_are_refused_and_others_in_the_batch_are_answered(
    real: tuple[str, Predictor],
) -> None:
    url, predictor = real
    tensor = triton.InferInput("pixels", [1, 9, 7, 3], "UINT8")
    tensor.set_data_from_numpy(np.zeros((1, 9, 7, 3), np.uint8))
    with client_of(url) as client:
        status, said = fault(client.infer, predictor.model.id, [tensor])
    assert status == 422 and "(9, 7, 3)" in said and "preprocess them for it" in said
    good = encoded(photos(1)[0], "PNG")
    mixed = predictor.predict([np.zeros((9, 7, 3), np.uint8), good])
    assert isinstance(mixed[1], Prediction)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", "text/html", None])
def test_every_format_is_answered_whatever_its_type_says(
    real: tuple[str, Predictor], form: str, content_type: str | None
) -> None:
    url, predictor = real
    data = encoded(photos(1)[0], form)
    headers = {} if content_type is None else {"content-type": content_type}
    response = httpx.post(f"{url}/v1/predict", content=data, headers=headers, trust_env=False)
    (offline,) = predictor.predict([data])
    assert isinstance(offline, Prediction)
    assert response.json()["probabilities"] == pytest.approx(offline.probabilities, abs=1e-6)


def bomb() -> bytes:
    """A few kilobytes that would be 400 million pixels."""
    return encoded(Image.new("1", (20_000, 20_000)), "PNG")


def test_bombs_and_damaged_files_are_refused_and_others_are_answered(real: tuple[str, Predictor]) -> None:
    url, _ = real
    good = encoded(photos(1)[0], "JPEG")
    hostile = [bomb(), good[: len(good) // 2], good[:20], b"GIF89a", b"\x89PNG\r\n\x1a\n" + bytes(100)]
    hostile += [b"II*\x00" + b"\xff" * 50, b"RIFF\x00\x00\x00\x00WEBPVP8 ", b"BM" + bytes(60)]
    with httpx.Client(base_url=url, trust_env=False, timeout=30) as http:
        for data in hostile:
            response = http.post("/v1/predict", content=data)
            assert response.status_code == (413 if data == hostile[0] else 422), response.text
            assert response.json()["detail"]
            assert http.post("/v1/predict", content=good).status_code == 200
        files = [("image", ("x", data)) for data in (hostile[0], good, hostile[1])]
        statuses = [item.get("status") for item in http.post("/v1/predict", files=files).json()]
    assert statuses == [413, None, 422]
