"""Models in int8: their verdicts, by kind of node, and their files. `autovision.promotion.quantization` makes them."""

from __future__ import annotations

from pathlib import Path

from autovision.model import converted
from autovision.model.runtimes import node
from autovision.model.version import read_stored
from autovision.records.base import digest_of
from autovision.records.models import ModelVersion
from autovision.records.runtimes import Quantized
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

NETWORK_FILE, WEIGHTS_FILE = "int8.xml", "int8.bin"


def key_of(model_id: str, threads: int) -> str:
    """Of the verdict on nodes of this kind."""
    return keys.quantized(model_id, digest_of(node(threads))[:16])


def read(store: Store, model_id: str, threads: int) -> Quantized | None:
    """The verdict on nodes of this kind; None if there is none."""
    try:
        return records.read(store, key_of(model_id, threads), Quantized)
    except KeyNotFound:
        return None


def all_of(store: Store, model_id: str) -> list[Quantized]:
    """The verdicts on every kind of node."""
    return records.read_all(store, keys.quantized_all(model_id), Quantized)


def file_of(store: Store, model: ModelVersion, quantized: Quantized) -> Path:
    """The network's file on this node, with its weights beside it. Raises `CorruptObject`."""
    path = converted.from_store("int8", digest_of(quantized.files)) / NETWORK_FILE

    def write(folder: Path) -> None:
        for name, digest in quantized.files.items():
            (folder / name).write_bytes(read_stored(store, model.id, name, digest))

    return converted.provide(path, write)


def refusals(quantized: Quantized) -> str:
    """What speaks against it, in one line."""
    return "; ".join(check.reason for check in quantized.checks if not check.passed)
