"""From a URI to a store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from autovision.errors import InvalidInput, near
from autovision.store.local import LocalStore
from autovision.store.memory import MemoryStore
from autovision.store.protocol import Store
from autovision.store.s3 import S3Location, S3Store

ENVIRONMENT_VARIABLE = "AUTOVISION_STORE"
DEFAULT_FOLDER = "autovision-store"

_CREDENTIALS = re.compile(r"//[^/]*@")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SUPPORTED = "a folder's path, file:///absolute/path, s3://bucket/prefix, or memory://name"


def open_store(uri: str | Path | None = None, *, cached: bool = True) -> Store:
    """The store at `uri`; None: at `$AUTOVISION_STORE`, or in the folder `autovision-store` here.

    A missing folder is created; a bucket has to exist. Raises `InvalidInput` for a URI that this version cannot open
    and `StoreUnavailable` for a folder or a bucket that cannot be used.

    Args:
        cached: whether a store elsewhere may be read from copies on this node.
    """
    if uri is None:
        uri = os.environ.get(ENVIRONMENT_VARIABLE) or Path(DEFAULT_FOLDER)
    if isinstance(uri, Path):
        return LocalStore(uri)
    match = _SCHEME.match(uri)
    if match is None:
        if not uri.strip():
            raise InvalidInput(f"the store's URI is empty; give {_SUPPORTED}")
        return LocalStore(Path(uri))
    match match[1].lower():
        case "file":
            return LocalStore(_folder_of(uri))
        case "s3":
            return S3Store(S3Location.parse(uri), cached=cached, prove=True)
        case "memory":
            return MemoryStore.named(uri.partition("://")[2])
        case scheme:
            hint = near(scheme, ["file", "memory", "s3"])
            shown = _CREDENTIALS.sub("//…@", uri)
            raise InvalidInput(
                f"the store {shown!r} has the scheme {scheme!r}, which this version does not support{hint}; "
                f"give {_SUPPORTED}"
            )


def _folder_of(uri: str) -> Path:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInput(f"the store {uri!r} is no URI: {error}; give {_SUPPORTED}") from None
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise InvalidInput(
            f"the store {uri!r} is not a file URI with an absolute path; write file:///path (three slashes), "
            "with '?' and '#' in the path as %3F and %23"
        )
    return Path(unquote(parts.path))
