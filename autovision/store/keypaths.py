"""Which keys are legal, and how a folder spells them.

Any UTF-8 text without NUL is a legal key if its slash-separated segments are neither empty nor `.` nor `..`.
On disk a folder's name never has a dot and a file's name always has one, so that the keys `a` and `a/b` live
side by side, and the store's own `.tmp` and `.locks` collide with nothing:

    images/ab/abcd        ->  images/ab/abcd.blob
    models/m/model.json   ->  models/m/model.json
    models/v1.2/m.json    ->  models/v1%2E2/m.json

Keys that differ only in case need a file system that tells cases apart, as Linux file systems do.
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from autovision.errors import InvalidInput

MAX_KEY_BYTES = 1024
"""of UTF-8, as on S3"""
MAX_NAME_BYTES = 255
"""of one escaped segment: what file systems allow"""

_SUFFIX = ".blob"
_UNSAFE_IN_FILE = re.compile(r"%|^\.|[\x01-\x1f\x7f]")
_UNSAFE_IN_FOLDER = re.compile(r"[%.\x01-\x1f\x7f]")


def check_key(key: str) -> str:
    """`key` if it is legal in every store; else an `InvalidInput` that says why not."""
    fault = _fault(key, key.split("/"))
    if fault:
        raise InvalidInput(f"the key {key!r} is not valid: {fault}; build keys with `autovision.store.keys`")
    return key


def check_prefix(prefix: str) -> str:
    """`prefix` if legal keys can begin with it; else an `InvalidInput` that says why not."""
    fault = _fault(prefix, prefix.split("/")[:-1])
    if fault:
        raise InvalidInput(
            f"no key begins with {prefix!r}: {fault}; build prefixes with `autovision.store.keys`"
        )
    return prefix


def check_folder(prefix: str) -> str:
    """`prefix` if it is legal, and empty or ends with a slash; else an `InvalidInput`."""
    if prefix and not prefix.endswith("/"):
        raise InvalidInput(f"{prefix!r} names no folder of keys; end it with a slash")
    return check_prefix(prefix)


def path_of(key: str) -> str:
    """The relative path that holds a legal key."""
    *folders, leaf = key.split("/")
    return "/".join([*map(folder_name, folders), file_name(leaf)])


def file_suffix(key: str) -> str:
    """The key's extension, where some reader of a copy might look at it."""
    suffix = Path(key).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) <= 16 else ""


def folder_name(segment: str) -> str:
    return _UNSAFE_IN_FOLDER.sub(_escape, segment)


def file_name(segment: str) -> str:
    name = _UNSAFE_IN_FILE.sub(_escape, segment)
    return name + _SUFFIX if "." not in name or name.endswith(_SUFFIX) else name


def segment_of_folder(name: str) -> str | None:
    """The segment that a folder spells; None if the store did not make it."""
    segment = unquote(name)
    return segment if _legal(segment) and folder_name(segment) == name else None


def segment_of_file(name: str) -> str | None:
    """The segment that a file spells; None if the store did not make it."""
    segment = unquote(name.removesuffix(_SUFFIX))
    return segment if _legal(segment) and file_name(segment) == name else None


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match[0]):02X}"


def _legal(segment: str) -> bool:
    return _fault(segment, [segment]) is None


def _fault(text: str, segments: list[str]) -> str | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "it cannot be written as UTF-8"
    if size > MAX_KEY_BYTES:
        return f"it has {size} bytes, and {MAX_KEY_BYTES} are allowed"
    if "\0" in text:
        return "it has a NUL character"
    for segment in segments:
        if segment in ("", ".", ".."):
            return f"it has the segment {segment!r} (no leading, trailing or double '/', no '.' or '..')"
        if max(len(name.encode()) for name in (file_name(segment), folder_name(segment))) > MAX_NAME_BYTES:
            return f"its segment {segment[:20]!r}… is longer than {MAX_NAME_BYTES} bytes when escaped"
    return None
