"""Weights that a user brings: from a file of any origin to one safetensors file and its record in the store.

read the file -> match its tensors with the backbone's -> store them by their digest -> reveal them by name
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor

from autovision.errors import Conflict, InvalidWeights
from autovision.model import backbone as backbones
from autovision.model import licenses, weight_files, weight_match
from autovision.model.stages import stages_of
from autovision.model.weights import digest_of_stored
from autovision.records.base import now
from autovision.records.models import ImportedWeights
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import Store


def import_weights(
    store: Store,
    path: Path,
    name: str,
    *,
    backbone: str,
    license: str | None = None,
    source: str | None = None,
    clock: Callable[[], datetime] = now,
) -> ImportedWeights:
    """Import weights of a timm model from a safetensors or PyTorch file; `store:NAME` then speaks of them.

    The same again changes nothing, and gives the record that is there.

    Args:
        license: SPDX identifier; None: unknown.
        source: where they come from, in words; None: the file's name.

    Raises:
        InvalidInput: no such file, backbone, or form of a name or licence.
        CorruptObject: the file is damaged, truncated, or holds other objects than tensors.
        InvalidWeights: they do not fit the backbone.
        Conflict: there are other weights of that name.
    """
    keys.check_name(name, what="the weights' name")
    if license is not None:
        licenses.check(license)
    model = backbones.create(TrialConfig(backbone=backbone, weights="random"))
    stages_of(model)  # weights that no trial could use are refused here
    what = f"weights file {path}"
    tensors = weight_match.match(weight_files.read(path), model, what)
    _check_finite(tensors, what)
    data = bytes(save_tensors({key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}))
    record = ImportedWeights(
        name=name,
        backbone=backbone,
        digest=hashlib.sha256(data).hexdigest(),
        license=license or licenses.UNKNOWN,
        source=source or f"file {path.name}",
        size_bytes=len(data),
        created_at=clock(),
    )
    _store_file(store, record.digest, data)
    stored, _ = records.create_or_read(store, keys.weights_record(name), record)
    given = {"backbone": backbone, "digest": record.digest, "license": license, "source": source}
    _check_same(stored, {key: value for key, value in given.items() if value is not None})
    return stored


def _check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InvalidWeights(
                f"{what}: tensor {name!r} holds values that are not finite; take weights of an earlier epoch"
            )


def _store_file(store: Store, digest: str, data: bytes) -> None:
    key = keys.weights_file(digest)
    if store.exists(key) and digest_of_stored(store, key) != digest:
        store.delete(key)  # damaged: importing again is what its error advises
    store.put_immutable(key, data)


def _check_same(stored: ImportedWeights, given: Mapping[str, str]) -> None:
    """Raises `Conflict` if the name belongs to something else than what is given now."""
    other = [key for key, value in given.items() if getattr(stored, key) != value]
    if other:
        there = ", ".join(f"{key} {getattr(stored, key)}" for key in other)
        raise Conflict(
            f"there are other weights of the name {stored.name!r} already (with {there}), and records of what was "
            f"trained from them speak of that name; choose another one, such as --name {stored.name}-2"
        )
