"""Requests of the inference protocol are understood or refused with the remedy; answers have the protocol's form."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autovision.errors import InvalidInput
from autovision.serving import oip
from autovision.serving.capture import Answered
from autovision.serving.problems import BodyTooLarge, TooManyImages

CLASSES = ("bright", "dark", "grey")


@dataclass(frozen=True)
class Said:
    label: str | tuple[str, ...]
    probabilities: dict[str, float]
    embedding: np.ndarray


def answered(label: str | tuple[str, ...], *values: float, image: bytes = b"x") -> Answered:
    said = Said(label, dict(zip(CLASSES, values, strict=True)), np.array([values[0], 1], np.float64))
    return Answered(f"id-{label}", "m1", datetime(2026, 3, 1, tzinfo=UTC), 1.0, image, said, {})


def packed(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def request(tensor: dict[str, Any], binary: bytes = b"", **more: Any) -> tuple[bytes, int]:
    """A body with its JSON's length."""
    text = json.dumps({"inputs": [tensor], **more}).encode()
    return text + binary, len(text)


def images(*elements: bytes, shape: list[int] | None = None, **more: Any) -> tuple[bytes, int]:
    data = packed(*elements)
    tensor = {"name": "image", "datatype": "BYTES", "shape": shape or [len(elements)]}
    return request(tensor | {"parameters": {"binary_data_size": len(data)}}, data, **more)


@given(st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=5), st.booleans())
def test_encoded_images_come_out_byte_for_byte(elements: list[bytes], column: bool) -> None:
    shape = [len(elements), 1] if column else [len(elements)]
    assert oip.parse(*images(*elements, shape=shape), 5).images == tuple(elements)
    text = [base64.b64encode(element).decode() for element in elements]
    tensor = {"name": "image", "datatype": "BYTES", "shape": shape}
    for data in (text, [[each] for each in text]):
        body, _ = request(tensor | {"data": data})
        assert oip.parse(body, None, 5).images == tuple(elements)


def test_a_body_without_json_is_one_image() -> None:
    asked = oip.parse(b"\x89PNG", 0, 5)
    assert asked.images == (b"\x89PNG",)
    assert [(wanted.name, wanted.binary) for wanted in asked.outputs] == [
        ("probabilities", True),
        ("label", True),
    ]


def test_pixels_come_out_one_array_an_image_however_they_are_written() -> None:
    pixels = np.arange(2 * 2 * 3 * 3, dtype=np.uint8).reshape(2, 2, 3, 3)
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape)}
    binary = request(tensor | {"parameters": {"binary_data_size": pixels.size}}, pixels.tobytes())
    for body, size in (
        binary,
        (request(tensor | {"data": pixels.tolist()})[0], None),
        (request(tensor | {"data": pixels.ravel().tolist()})[0], None),
    ):
        found = oip.parse(body, size, 5).images
        assert len(found) == 2
        for image, expected in zip(found, pixels, strict=True):
            assert isinstance(image, np.ndarray) and image.dtype == np.uint8
            np.testing.assert_array_equal(image, expected)


def test_ids_timeouts_and_outputs_are_understood_and_the_unknown_is_ignored() -> None:
    outputs = [
        {"name": "embedding", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"classification": 2}, "later": 1},
    ]
    parameters = {"timeout": 1500, "priority": 3, "binary_data_output": True}
    asked = oip.parse(*images(b"x", id="seven", outputs=outputs, parameters=parameters, news=[]), 5)
    assert (asked.id, asked.timeout_s) == ("seven", 0.0015)
    assert asked.outputs == (oip.Wanted("embedding", False), oip.Wanted("probabilities", True, 2))
    asked = oip.parse(*images(b"x", parameters={"timeout": 0}), 5)
    assert asked.timeout_s is None
    assert asked.outputs == (oip.Wanted("probabilities", False), oip.Wanted("label", False))


BYTES = {"name": "image", "datatype": "BYTES", "shape": [1]}
PIXELS = {"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3]}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"3", "the request"),
        (b"{}", "inputs"),
        (b'{"inputs": []}', "inputs are none"),
        (b'{"inputs": [{"name": 3}]}', "inputs.0.name"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}]}', "inputs.0.shape"),
        (b'{"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1.0]}]}', "inputs.0.shape"),
        (json.dumps({"id": "x" * 257, "inputs": [BYTES]}).encode(), "id: "),
        (request(BYTES | {"name": "picture"})[0], "'picture'; send exactly one, 'image' or 'pixels'"),
        (json.dumps({"inputs": [BYTES, PIXELS]}).encode(), "'image', 'pixels'; send exactly one"),
        (request(BYTES | {"shape": []})[0], "at least one image"),
        (request(BYTES | {"shape": [0]})[0], "at least one image"),
        (request(BYTES | {"shape": [1, 2]})[0], r"send BYTES, with the shape \[n\] or \[n, 1\]"),
        (request(BYTES | {"datatype": "UINT8"})[0], "send BYTES"),
        (request(BYTES)[0], "0 elements"),
        (request(BYTES | {"data": "eA=="})[0], "0 elements"),
        (request(BYTES | {"data": ["no base64!"]})[0], "base64"),
        (request(BYTES | {"data": ["ü"]})[0], "base64"),
        (request(BYTES | {"data": [3]})[0], "base64"),
        (request(BYTES | {"data": ["eA==", "eA=="]})[0], "2 elements"),
        (request(BYTES | {"data": [""]})[0], "image 0 .* is empty"),
        (request(BYTES | {"parameters": {"binary_data_size": 9}})[0], "0 bytes follow"),
        (request(BYTES | {"parameters": {"shared_memory_region": "r"}})[0], "shared memory"),
        (request(PIXELS | {"datatype": "FP32"})[0], "send UINT8"),
        (request(PIXELS | {"shape": [1, 1, 3]})[0], r"\[n, H, W, 3\]"),
        (request(PIXELS | {"shape": [1, 1, 1, 4]})[0], r"\[n, H, W, 3\]"),
        (request(PIXELS | {"data": [0, 1]})[0], "and 2 values"),
        (request(PIXELS)[0], "integers from 0 to 255"),
        (request(PIXELS | {"data": [0, 1, 256]})[0], "integers from 0 to 255"),
        (request(PIXELS | {"data": [0, 1, -1]})[0], "integers from 0 to 255"),
        (request(PIXELS | {"data": [0, 1, 0.5]})[0], "integers from 0 to 255"),
        (request(PIXELS | {"data": [[0, 1], [2]]})[0], "integers from 0 to 255"),
        (request(PIXELS | {"data": {"a": 1}})[0], "integers from 0 to 255"),
        (request(PIXELS | {"shape": [1, 2**62, 2**62, 3], "data": [0]})[0], "and 1 values"),
    ],
)
def test_a_request_that_is_not_valid_is_refused_with_the_remedy(body: bytes, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        oip.parse(body, None, 5)


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"outputs": [{"name": "labels"}]}, "'labels'.*did you mean 'label'"),
        ({"outputs": [{"name": "label"}, {"name": "label"}]}, "twice"),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}, "binary_data"),
        ({"outputs": [{"name": "label", "parameters": {"classification": 1}}]}, "classification"),
        ({"outputs": [{"name": "label", "parameters": {"shared_memory_region": "r"}}]}, "shared memory"),
        ({"outputs": [{"name": "probabilities", "parameters": {"classification": -1}}]}, "classification"),
        ({"parameters": {"binary_data_output": "yes"}}, "binary_data_output"),
        ({"parameters": {"timeout": -1}}, "microseconds"),
        ({"parameters": {"timeout": True}}, "microseconds"),
    ],
)
def test_what_is_wanted_must_exist(more: dict[str, Any], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        oip.parse(*images(b"x", **more), 5)


def test_tensors_that_do_not_match_what_is_said_of_them_are_refused() -> None:
    body, size = images(b"abc", b"de")
    for damaged, said in ((body[:-1], size), (body + b"x", size), (body, size + 1)):
        with pytest.raises(InvalidInput):
            oip.parse(damaged, said, 5)
    with pytest.raises(InvalidInput, match="has 10 bytes"):
        oip.parse(bytes(10), 11, 5)
    data = (9).to_bytes(4, "little") + b"abc"
    tensor = BYTES | {"parameters": {"binary_data_size": len(data)}}
    with pytest.raises(InvalidInput, match=r"element 0 .* cut short"):
        oip.parse(*request(tensor, data), 5)
    with pytest.raises(InvalidInput, match="either there, with their number, or in the JSON"):
        oip.parse(*request(tensor | {"data": ["eA=="]}, data), 5)


def test_too_many_images_and_too_much_json_are_refused() -> None:
    with pytest.raises(TooManyImages, match="6 images, and 5"):
        oip.parse(*images(*[b"x"] * 6), 5)
    with pytest.raises(TooManyImages):
        oip.parse(*images(b"x", shape=[10**12]), 5)
    with pytest.raises(BodyTooLarge, match="send tensors as binary data"):
        oip.parse(b" " * (oip.MAX_JSON_BYTES + 1), None, 5)


@given(st.binary(max_size=200), st.none() | st.integers(0, 250))
def test_any_bytes_are_a_request_or_a_clear_error(body: bytes, size: int | None) -> None:
    try:
        asked = oip.parse(body, size, 5)
    except InvalidInput as error:
        assert str(error)
    else:
        assert size == 0 and asked.images == (body,)


ANSWERS = [answered("bright", 0.75, 0.25, 0), answered("dark", 0.125, 0.375, 0.5, image=b"")]


def rendered(*outputs: oip.Wanted, answers: list[Answered] = ANSWERS) -> tuple[dict[str, Any], bytes]:
    body, size = oip.render("shades", oip.Asked("seven", (), outputs), answers, CLASSES)
    assert (size is None) == (not any(output.binary for output in outputs))
    return json.loads(body[:size]), body[size:] if size is not None else b""


def test_outputs_in_json_are_flat_lists_in_the_order_that_was_asked_for() -> None:
    said, tensors = rendered(
        *(oip.Wanted(name, False) for name in ("label", "embedding", "request_id", "probabilities"))
    )
    assert (said["model_name"], said["model_version"], said["id"], tensors) == ("shades", "m1", "seven", b"")
    assert said["outputs"] == [
        {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["bright", "dark"]},
        {"name": "embedding", "datatype": "FP32", "shape": [2, 2], "data": [0.75, 1, 0.125, 1]},
        {"name": "request_id", "datatype": "BYTES", "shape": [2], "data": ["id-bright", ""]},
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 3], "data": [0.75, 0.25, 0, 0.125, 0.375, 0.5]},
    ]  # fmt: skip


def test_binary_outputs_follow_the_json_and_say_their_size() -> None:
    said, tensors = rendered(
        oip.Wanted("probabilities", True), oip.Wanted("embedding", False), oip.Wanted("label", True)
    )
    assert [output.get("parameters") for output in said["outputs"]] == [
        {"binary_data_size": 24},
        None,
        {"binary_data_size": 18},
    ]
    np.testing.assert_array_equal(np.frombuffer(tensors[:24], "<f4"), [0.75, 0.25, 0, 0.125, 0.375, 0.5])
    assert tensors[24:] == packed(b"bright", b"dark")


def test_the_most_probable_classes_as_text() -> None:
    said, _ = rendered(oip.Wanted("probabilities", False, 2))
    (output,) = said["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [2, 2])
    assert output["data"] == ["0.750000:0:bright", "0.250000:1:dark", "0.500000:2:grey", "0.375000:1:dark"]
    (output,) = rendered(oip.Wanted("probabilities", False, 99))[0]["outputs"]
    assert output["shape"] == [2, 3]


def test_any_number_of_classes_are_one_text_with_bars_between_them() -> None:
    answers = [answered(("bright", "grey"), 0.9, 0.1, 0.8), answered((), 0.1, 0.1, 0.1)]
    said, _ = rendered(oip.Wanted("label", False), answers=answers)
    assert said["outputs"][0]["data"] == ["bright|grey", ""]
