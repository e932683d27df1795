"""Reading a request: a bounded body, files out of a form, metadata out of headers."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Callable, Collection, Iterable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from autovision.errors import InvalidInput
from autovision.serving.problems import BodyTooLarge, EmptyBody, SlowBody, UnsupportedEncoding

META_PREFIX = "x-autovision-meta-"
KEY_HEADER = "x-autovision-key"
"""names the caller: during a rollout all requests with one key are answered by the same model"""
MAX_META = 32
"""metadata headers per request"""
MAX_META_VALUE = 256
"""characters of one value"""
COMPRESSED = ("gzip", "deflate")
"""content encodings that `read_body` undoes where they are allowed"""

_META_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,70})"|([^\s;,"]{1,70}))', re.IGNORECASE)


async def read_body(
    request: Request,
    limit_bytes: int,
    *,
    timeout_s: float | None = None,
    hold: Callable[[int], None] = lambda size: None,
    encodings: Collection[str] = (),
) -> bytes:
    """The whole body, never holding more than `limit_bytes` of it, and as large when it is decompressed.

    Args:
        timeout_s: to its last byte; None: as long as it takes.
        hold: told the size of each part before it is kept; refuses it by raising.
        encodings: of `COMPRESSED`, those that are undone; others are refused.

    Raises `BodyTooLarge` as soon as the limit is passed, `EmptyBody`, `UnsupportedEncoding`, `SlowBody`,
    `InvalidInput` for a damaged encoding, and what `hold` raises.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity" and encoding not in encodings:
        raise UnsupportedEncoding
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    body = await received(request, limit_bytes, timeout_s, hold)
    if encoding != "identity":
        # It frees the interpreter's lock, and so the event loop, for all but the start.
        body = await run_in_threadpool(decompressed, body, encoding, limit_bytes)
        hold(len(body))
    if not body:
        raise EmptyBody
    return body


async def received(
    request: Request, limit_bytes: int, timeout_s: float | None, hold: Callable[[int], None]
) -> bytes:
    """The body as it was sent; see `read_body`."""
    try:
        async with asyncio.timeout(timeout_s) as deadline:
            return await _received(request, limit_bytes, hold)
    except TimeoutError:
        if deadline.expired():
            raise SlowBody(
                f"the body did not arrive within {timeout_s:g} s; send it faster, or scale the image down"
            ) from None
        raise


async def _received(request: Request, limit_bytes: int, hold: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        hold(len(chunk))
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def decompressed(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """`body` without its `gzip` or `deflate` (zlib's format, RFC 9110), never more than the limit of it.

    Raises `BodyTooLarge`, and `InvalidInput` if it is damaged, cut short, or followed by something.
    """
    decoder = zlib.decompressobj(zlib.MAX_WBITS | (16 if encoding == "gzip" else 0))
    try:
        data = decoder.decompress(body, limit_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not {encoding}: {error}; send it again") from None
    if len(data) > limit_bytes:
        raise _too_large(limit_bytes)
    if not decoder.eof or decoder.unused_data:
        raise InvalidInput(f"the body is cut short, or more than one {encoding} stream; send it again")
    return data


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the body is larger than {limit_bytes:,} bytes; scale the image down")


def images_of(content_type: str, body: bytes) -> bytes | list[bytes]:
    """The image that the body is, whatever its type, or that a form with one file holds; else those of the form.

    Among several, an empty one stays in its place.
    Raises `InvalidInput` if a form is damaged or holds no file, `EmptyBody` if its only file is empty.
    """
    if not content_type.lower().startswith("multipart/form-data"):
        return body
    files = list(_files(content_type, body))
    if not files:
        raise InvalidInput("the form holds no files; send each image in a field with a filename")
    if len(files) > 1:
        return files
    if not files[0]:
        raise EmptyBody("the file in the form is empty; send the bytes of one image")
    return files[0]


def _files(content_type: str, body: bytes) -> Iterable[bytes]:
    """The contents of a form's parts that have a file name (RFC 7578)."""
    match = _BOUNDARY.search(content_type)
    if match is None:
        raise InvalidInput(
            "the multipart Content-Type names no boundary; let the HTTP library set that header"
        )
    delimiter = b"\r\n--" + (match[1] or match[2]).encode("latin-1")
    # The first delimiter may open the body, without the line break that precedes the others.
    sections = (b"\r\n" + body).split(delimiter)
    if len(sections) < 3 or not sections[-1].startswith(b"--"):
        raise InvalidInput("the multipart body is cut short or does not match its boundary; send it again")
    for section in sections[1:-1]:
        head, separator, content = section.partition(b"\r\n\r\n")
        if not separator:
            raise InvalidInput("a part of the multipart body has no headers; send it again")
        if re.search(rb"^content-disposition:[^\r\n]*;\s*filename\*?=", head, re.IGNORECASE | re.MULTILINE):
            yield content


def metadata_of(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """What the caller said of the image: `X-Autovision-Meta-Cell-Type: poly` gives {"cell_type": "poly"}.

    Values are UTF-8, or else Latin-1. Raises `InvalidInput` for too many, too long, doubled or misnamed ones.
    """
    prefix = META_PREFIX.encode()
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        if not raw_name.lower().startswith(prefix):
            continue
        name = raw_name[len(prefix) :].decode("latin-1").lower().replace("-", "_")
        value = _text(raw_value).strip()
        fault = _fault(name, value, found)
        if fault:
            raise InvalidInput(f"metadata header {META_PREFIX}{name[:80]!a}: {fault}")
        found[name] = value
    return found


def _fault(name: str, value: str, found: dict[str, str]) -> str | None:
    """What is wrong with a metadata header; None: nothing."""
    if not _META_NAME.fullmatch(name):
        return "the name must be 1 to 64 of a-z, 0-9, '-' and '_'"
    if name in found:
        return "given twice; send it once"
    if len(found) >= MAX_META:
        return f"more than {MAX_META} of them; send fewer"
    if len(value) > MAX_META_VALUE:
        return f"the value has {len(value)} characters; at most {MAX_META_VALUE} are taken"
    if not value.isprintable():
        return "the value has control characters; remove them"
    return None


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
