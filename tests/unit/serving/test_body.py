"""Bodies are bounded in size and time, forms hold files, metadata is checked."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import zlib
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request

from autovision.errors import InvalidInput
from autovision.serving.body import MAX_META, MAX_META_VALUE, images_of, metadata_of, read_body
from autovision.serving.problems import BodyTooLarge, EmptyBody, SlowBody, UnsupportedEncoding


def request(chunks: list[bytes], headers: dict[str, str] | None = None) -> tuple[Request, list[bytes]]:
    """A request, and the chunks of its body that nobody has read yet."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        chunk = left.pop(0) if left else b""
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive), left


def read(chunks: list[bytes], limit: int = 10, headers: dict[str, str] | None = None) -> bytes:
    return asyncio.run(read_body(request(chunks, headers)[0], limit))


def test_a_body_up_to_the_limit_is_read() -> None:
    assert read([b"12345", b"", b"67890"]) == b"1234567890"


def test_reading_stops_when_the_limit_is_passed() -> None:
    asked, left = request([b"12345"] * 100)
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        asyncio.run(read_body(asked, 10))
    assert len(left) == 97


def test_a_declared_length_over_the_limit_is_refused_unread() -> None:
    asked, left = request([b"x"], {"Content-Length": "11"})
    with pytest.raises(BodyTooLarge):
        asyncio.run(read_body(asked, 10))
    assert left == [b"x"]


def test_nothing_and_compressed_bodies_are_refused() -> None:
    with pytest.raises(EmptyBody):
        read([b"", b""])
    with pytest.raises(UnsupportedEncoding):
        read([b"x"], headers={"Content-Encoding": "gzip"})
    assert read([b"x"], headers={"Content-Encoding": "identity", "Content-Length": "-3"}) == b"x"


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_compressed_body_is_undone_where_that_is_allowed_and_never_beyond_the_limit(
    encoding: str, pack: Any
) -> None:
    def unpacked(body: bytes, limit: int = 1000) -> bytes:
        asked, _ = request([body], {"Content-Encoding": encoding})
        return asyncio.run(read_body(asked, limit, encodings=("gzip", "deflate")))

    assert unpacked(pack(b"x" * 1000)) == b"x" * 1000
    with pytest.raises(BodyTooLarge, match="1,000 bytes"):
        unpacked(pack(b"x" * 1001))
    with pytest.raises(BodyTooLarge):
        unpacked(pack(bytes(10**8)), 10**6)
    with pytest.raises(EmptyBody):
        unpacked(pack(b""))
    for damaged in (b"plain", pack(b"xyz")[:-1], pack(b"xyz") + b"more"):
        with pytest.raises(InvalidInput, match="send it again"):
            unpacked(damaged)


def test_a_body_that_never_ends_is_cut_off_in_time() -> None:
    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    endless = Request({"type": "http", "method": "POST", "headers": []}, trickle)
    with pytest.raises(SlowBody, match=r"within 0\.1 s"):
        asyncio.run(read_body(endless, 10**6, timeout_s=0.1))


def test_every_part_of_a_body_is_told_before_it_is_kept() -> None:
    held: list[int] = []
    asked, left = request([b"12345"] * 100)

    def hold(size: int) -> None:
        if sum(held) + size > 12:
            raise BodyTooLarge("enough")
        held.append(size)

    with pytest.raises(BodyTooLarge, match="enough"):
        asyncio.run(read_body(asked, 10**6, hold=hold))
    assert held == [5, 5] and len(left) == 97


def form(files: Any, data: Any = None) -> tuple[str, bytes]:
    """A form as a real HTTP library writes it."""
    made = httpx.Request("POST", "http://x", files=files, data=data)
    return made.headers["content-type"], made.read()


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=1, max_size=300), st.text(min_size=1, max_size=20))
def test_the_one_file_of_a_form_comes_out_byte_for_byte(content: bytes, name: str) -> None:
    assert images_of(*form({"file": (name, content, "image/png")}, {"note": "x"})) == content


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.text(alphabet=st.characters(codec="latin-1"), max_size=60))
def test_any_bytes_as_a_form_are_a_file_or_a_clear_error(body: bytes, boundary: str) -> None:
    with contextlib.suppress(InvalidInput, EmptyBody):
        found = images_of(f"multipart/form-data; boundary={boundary}", body)
        assert all(file in body for file in ([found] if isinstance(found, bytes) else found))


@pytest.mark.parametrize(
    ("content_type", "body", "fault"),
    [
        ("multipart/form-data", b"--x--", "no boundary"),
        ("multipart/form-data; boundary=x", b"no delimiter", "cut short"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n", "cut short"),
        ("multipart/form-data; boundary=x", b"--x\r\nno headers\r\n--x--", "no headers"),
        (
            'multipart/form-data; boundary="x"',
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nv\r\n--x--',
            "no files",
        ),
    ],
)
def test_damaged_forms_and_those_without_a_file_are_refused(
    content_type: str, body: bytes, fault: str
) -> None:
    with pytest.raises(InvalidInput, match=fault):
        images_of(content_type, body)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=50), min_size=2, max_size=5))
def test_several_files_of_a_form_come_out_in_order(contents: list[bytes]) -> None:
    files = [("file", (f"{number}.png", content)) for number, content in enumerate(contents)]
    assert images_of(*form(files, {"note": "x"})) == contents


def test_an_empty_file_is_an_empty_body_and_other_types_are_the_image_itself() -> None:
    with pytest.raises(EmptyBody):
        images_of(*form({"file": b""}))
    assert images_of("text/plain", b"--x") == b"--x"
    assert images_of("", b"abc") == b"abc"


def meta(**headers: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-autovision-meta-" + name.encode(), value.encode()) for name, value in headers.items()]


def test_metadata_names_are_lower_case_with_underscores() -> None:
    raw = [
        (b"X-Autovision-Meta-Cell-Type", b" poly "),
        (b"host", b"x"),
        (b"x-autovision-meta-line", "Süd".encode()),
        (b"x-autovision-meta-old", "Süd".encode("latin-1")),
    ]
    assert metadata_of(raw) == {"cell_type": "poly", "line": "Süd", "old": "Süd"}


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        (meta(**{f"n{i}": "v" for i in range(MAX_META + 1)}), f"more than {MAX_META}"),
        (meta(long="x" * (MAX_META_VALUE + 1)), f"{MAX_META_VALUE + 1} characters"),
        (meta(a_b="1") + meta(**{"a-b": "2"}), "twice"),
        (meta(**{"": "x"}), "name must be"),
        (meta(**{"a.b": "x"}), "name must be"),
        (meta(**{"x" * 65: "x"}), "name must be"),
        ([(b"x-autovision-meta-a", b"x\x1b[31my")], "control"),
    ],
)
def test_metadata_beyond_the_bounds_is_refused(headers: list[tuple[bytes, bytes]], fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault) as caught:
        metadata_of(headers)
    assert re.fullmatch(r"[ -~]*", str(caught.value)), "what came from outside is escaped"


def test_metadata_at_the_bounds_is_taken() -> None:
    headers = meta(**{f"n{i}": "v" * MAX_META_VALUE for i in range(MAX_META)})
    assert len(metadata_of(headers)) == MAX_META
