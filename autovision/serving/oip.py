"""The Open Inference Protocol v2: requests and answers of `infer`, with binary tensors and classification.

    inputs      image   BYTES [n] or [n, 1]     encoded images, one an element; in JSON as base64
                pixels  UINT8 [n, H, W, 3]      preprocessed for the model already
    outputs     probabilities   FP32 [n, C]     or, with the parameter `classification`, BYTES [n, k]
                label           BYTES [n]       of any number of classes: their names with | between them
                embedding       FP32 [n, D]     the head's input; only when it is asked for
                request_id      BYTES [n]       what feedback names; only when it is asked for; empty for pixels

Bytes in, bytes out: nothing here knows HTTP.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from autovision.errors import InvalidInput, near
from autovision.records.datasets import labels_of
from autovision.records.models import ModelVersion
from autovision.serving.capture import Answered
from autovision.serving.predicting import Input, Pixels
from autovision.serving.problems import BodyTooLarge, TooManyImages

MAX_JSON_BYTES = 4 * 2**20
"""of a request's JSON: numbers as text are slow to read, and everybody waits meanwhile"""
EXTENSIONS = ("binary_tensor_data", "classification")
DEFAULT_OUTPUTS = ("probabilities", "label")
OUTPUTS = (*DEFAULT_OUTPUTS, "embedding", "request_id")
BETWEEN_LABELS = "|"


# ------------------------------------------------------------------------------------------------- requests


class _Part(BaseModel):
    """A part of a request. What is not known is ignored, as the protocol asks for."""

    model_config = ConfigDict(frozen=True)


class _Tensor(_Part):
    name: str
    datatype: str
    shape: tuple[Annotated[int, Field(ge=0, strict=True)], ...]
    parameters: dict[str, Any] = {}
    data: Any = None


class _Output(_Part):
    name: str
    parameters: dict[str, Any] = {}


class _Request(_Part):
    id: Annotated[str, Field(max_length=256)] = ""
    parameters: dict[str, Any] = {}
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Output, ...] = ()


_REQUEST = TypeAdapter(_Request)


@dataclass(frozen=True)
class Wanted:
    """An output that was asked for."""

    name: str
    binary: bool
    """after the JSON instead of in it"""
    classes: int = 0
    """so many of the most probable ones, as text; 0: all probabilities, as numbers"""


@dataclass(frozen=True)
class Asked:
    """A request, understood."""

    id: str
    images: tuple[Input, ...]
    outputs: tuple[Wanted, ...]
    timeout_s: float | None = None
    """what the caller allows; None: nothing was said"""


def parse(body: bytes, header_bytes: int | None, max_images: int) -> Asked:
    """What a request asks for.

    Args:
        header_bytes: of the JSON, with which the body begins; None: the JSON is all of the body; 0: there is none,
            and the body is one image.

    Raises:
        InvalidInput: what is wrong, and what would be right.
        TooManyImages: there are more than `max_images`.
        BodyTooLarge: the JSON has more than `MAX_JSON_BYTES`.
    """
    if header_bytes == 0:
        return Asked("", (body,), tuple(Wanted(name, binary=True) for name in DEFAULT_OUTPUTS))
    if header_bytes is not None and header_bytes > len(body):
        raise InvalidInput(
            f"Inference-Header-Content-Length is {header_bytes}, and the body has {len(body)} bytes; send the "
            "length of the JSON before the tensors"
        )
    size = len(body) if header_bytes is None else header_bytes
    if size > MAX_JSON_BYTES:
        raise BodyTooLarge(
            f"the JSON of the request has {size:,} bytes, and {MAX_JSON_BYTES:,} are taken; send tensors as "
            "binary data"
        )
    request = _request_of(body[:size])
    return Asked(
        request.id,
        _images_of(request, memoryview(body)[size:], max_images),
        _outputs_of(request),
        _timeout_of(request),
    )


def _request_of(text: bytes) -> _Request:
    try:
        return _REQUEST.validate_python(from_json(text))
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the request'}: {fault['msg']}"
            for fault in error.errors(include_url=False)[:3]
        ]
        raise InvalidInput(f"the inference request is not valid: {'; '.join(faults)}") from None
    except ValueError as error:
        raise InvalidInput(
            f"the inference request is not JSON: {error}; with tensors after the JSON, send its length as "
            "Inference-Header-Content-Length"
        ) from None


def _images_of(request: _Request, tensors: memoryview, max_images: int) -> tuple[Input, ...]:
    if len(request.inputs) != 1 or request.inputs[0].name not in _INPUTS:
        names = ", ".join(repr(tensor.name[:80]) for tensor in request.inputs[:4]) or "none"
        raise InvalidInput(f"the inputs are {names}; send exactly one, 'image' or 'pixels'")
    (tensor,) = request.inputs
    if any(name.startswith("shared_memory") for name in tensor.parameters):
        raise InvalidInput(
            f"input {tensor.name!r} is in shared memory, which is not supported; send its data"
        )
    if not tensor.shape or not tensor.shape[0]:
        raise InvalidInput(
            f"input {tensor.name!r} has the shape {list(tensor.shape)}; send at least one image"
        )
    if tensor.shape[0] > max_images:
        raise TooManyImages(
            f"input {tensor.name!r} holds {tensor.shape[0]} images, and {max_images} are taken at once; send "
            "them in several requests"
        )
    size = tensor.parameters.get("binary_data_size")
    if size is None and not tensors:
        return _INPUTS[tensor.name](tensor, None)
    if size != len(tensors) or isinstance(size, bool) or tensor.data is not None:
        raise InvalidInput(
            f"input {tensor.name!r} has binary_data_size {size!r}, and {len(tensors)} bytes follow the JSON; "
            "send its data either there, with their number, or in the JSON"
        )
    return _INPUTS[tensor.name](tensor, tensors)


def _encoded(tensor: _Tensor, binary: memoryview | None) -> tuple[Input, ...]:
    """The elements of input `image`."""
    count = tensor.shape[0]
    if tensor.datatype != "BYTES" or tensor.shape not in ((count,), (count, 1)):
        raise _form(tensor, "BYTES, with the shape [n] or [n, 1]")
    images = _from_json(tensor.data) if binary is None else _elements(binary)
    if len(images) != count:
        raise InvalidInput(f"input 'image' has the shape {list(tensor.shape)} and {len(images)} elements")
    for number, image in enumerate(images):
        if not image:
            raise InvalidInput(f"image {number} of input 'image' is empty; send the bytes of an image file")
    return tuple(images)


def _elements(binary: memoryview) -> list[bytes]:
    """Each element is its length, four bytes, little-endian, and then its bytes."""
    found: list[bytes] = []
    at = 0
    while at < len(binary):
        begins = at + 4
        ends = begins + int.from_bytes(binary[at:begins], "little")
        if begins > len(binary) or ends > len(binary):
            raise InvalidInput(
                f"element {len(found)} of input 'image' is cut short; send before each its length in four "
                "bytes, little-endian"
            )
        found.append(bytes(binary[begins:ends]))
        at = ends
    return found


def _from_json(data: Any) -> list[bytes]:
    items = data if isinstance(data, list) else []
    # [["…"], ["…"]] is how the shape [n, 1] may be written, too.
    flat = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in items]
    try:
        return [base64.b64decode(item, validate=True) for item in flat]
    except (binascii.Error, TypeError, ValueError):
        raise InvalidInput(
            "the data of input 'image' in JSON are not all base64 text; encode them, or send them as binary data"
        ) from None


def _pixels(tensor: _Tensor, binary: memoryview | None) -> tuple[Input, ...]:
    """The images of input `pixels`."""
    shape = tensor.shape
    if tensor.datatype != "UINT8" or len(shape) != 4 or shape[3] != 3:
        raise _form(tensor, "UINT8, with the shape [n, H, W, 3]")
    values = _numbers(tensor.data) if binary is None else np.frombuffer(binary, np.uint8)
    if values.size != prod(shape):
        raise InvalidInput(f"input 'pixels' has the shape {list(shape)}, and {values.size} values")
    return tuple(values.reshape(shape))


def _numbers(data: Any) -> Pixels:
    try:
        values = np.asarray(data if data is not None else [])
    except ValueError:
        values = np.empty(0, np.float64)
    if not values.size or values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255:
        raise InvalidInput("the data of input 'pixels' are not integers from 0 to 255 in even rows")
    return values.astype(np.uint8)


_INPUTS = {"image": _encoded, "pixels": _pixels}


def _form(tensor: _Tensor, right: str) -> InvalidInput:
    return InvalidInput(
        f"input {tensor.name!r} is {tensor.datatype[:20]!r}, with the shape {list(tensor.shape[:8])}; send {right}"
    )


def _outputs_of(request: _Request) -> tuple[Wanted, ...]:
    default = _flag(request.parameters, "binary_data_output", False)
    wanted = request.outputs or tuple(_Output(name=name) for name in DEFAULT_OUTPUTS)
    found = []
    for output in wanted:
        if output.name not in OUTPUTS:
            name = output.name[:80]
            raise InvalidInput(
                f"there is no output {name!r}; ask for {', '.join(OUTPUTS)}{near(name, OUTPUTS)}"
            )
        if any(name.startswith("shared_memory") for name in output.parameters):
            raise InvalidInput(f"output {output.name!r} is wanted in shared memory, which is not supported")
        classes = output.parameters.get("classification", 0)
        if not isinstance(classes, int) or classes < 0 or (classes and output.name != "probabilities"):
            raise InvalidInput(
                f"classification of output {output.name!r} is {str(classes)[:20]!r}; ask for a number of "
                "classes, of output 'probabilities'"
            )
        binary = _flag(output.parameters, "binary_data", default)
        found.append(Wanted(output.name, binary=binary, classes=int(classes)))
    if len({output.name for output in found}) != len(found):
        raise InvalidInput("an output is asked for twice; ask for it once")
    return tuple(found)


def _flag(parameters: dict[str, Any], name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidInput(f"parameter {name!r} is {str(value)[:20]!r}; send true or false")
    return value


def _timeout_of(request: _Request) -> float | None:
    value = request.parameters.get("timeout")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidInput(f"parameter 'timeout' is {str(value)[:20]!r}; send a number of microseconds")
    # Triton takes 0 for: as the server likes.
    return value / 1e6 or None


# -------------------------------------------------------------------------------------------------- answers


def render(
    name: str, asked: Asked, answers: Sequence[Answered], classes: Sequence[str]
) -> tuple[bytes, int | None]:
    """The body of an answer, and of how many bytes its JSON is if tensors follow it.

    Args:
        name: of the model as it was asked for.
        answers: one an image, all of one model version; at least one.
    """
    outputs: list[dict[str, Any]] = []
    tensors: list[bytes] = []
    for wanted in asked.outputs:
        datatype, shape, values = _values(wanted, answers, classes)
        output: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
        if wanted.binary:
            tensors.append(_packed(values))
            output["parameters"] = {"binary_data_size": len(tensors[-1])}
        elif isinstance(values, np.ndarray):
            output["data"] = values.ravel().tolist()
        else:
            output["data"] = values
        outputs.append(output)
    said = {"model_name": name, "model_version": answers[0].model, "outputs": outputs}
    if asked.id:
        said["id"] = asked.id
    text = to_json(said)
    return (b"".join([text, *tensors]), len(text)) if tensors else (text, None)


def _values(
    wanted: Wanted, answers: Sequence[Answered], classes: Sequence[str]
) -> tuple[str, list[int], np.ndarray[Any, Any] | list[str]]:
    """Datatype, shape and values of an output; numbers as float32, text as a flat list."""
    n = len(answers)
    match wanted.name:
        case "embedding":
            embeddings = np.stack([np.asarray(answer.prediction.embedding, "<f4") for answer in answers])
            return "FP32", list(embeddings.shape), embeddings
        case "label":
            return (
                "BYTES",
                [n],
                [BETWEEN_LABELS.join(labels_of(answer.prediction.label)) for answer in answers],
            )
        case "request_id":
            return "BYTES", [n], [answer.request_id if answer.image else "" for answer in answers]
    probabilities = np.array(
        [[answer.prediction.probabilities[name] for name in classes] for answer in answers], "<f4"
    )
    if not wanted.classes:
        return "FP32", list(probabilities.shape), probabilities
    k = min(wanted.classes, len(classes))
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    text = [
        f"{row[column]:f}:{column}:{classes[column]}"
        for row, columns in zip(probabilities, best, strict=True)
        for column in columns
    ]
    return "BYTES", [n, k], text


def _packed(values: np.ndarray[Any, Any] | list[str]) -> bytes:
    if isinstance(values, np.ndarray):
        return values.tobytes()
    encoded = [value.encode() for value in values]
    return b"".join(part for each in encoded for part in (len(each).to_bytes(4, "little"), each))


# ------------------------------------------------------------------------------------------------- metadata


def metadata(name: str, model: ModelVersion) -> dict[str, Any]:
    """What a model takes and gives; a size of -1 may be any."""
    prep = model.preprocessing
    return {
        "name": name,
        "versions": [model.id],
        "platform": "autovision",
        "inputs": [
            _spec("image", "BYTES", [-1]),
            _spec("pixels", "UINT8", [-1, prep.height, prep.width, 3]),
        ],
        "outputs": [
            _spec("probabilities", "FP32", [-1, len(model.classes)]),
            _spec("label", "BYTES", [-1]),
            _spec("embedding", "FP32", [-1, -1]),
            _spec("request_id", "BYTES", [-1]),
        ],
        "parameters": {"classes": BETWEEN_LABELS.join(model.classes), "multi_label": model.multi_label},
    }


def _spec(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape}
