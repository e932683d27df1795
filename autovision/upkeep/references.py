"""What refers to what in a store.

Two questions have two answers. What must be there follows from the fields that name it. What may be removed is decided
more carefully: an object is kept as soon as its key, or the digest in its key, is found anywhere in any record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from autovision.dataset import manifest
from autovision.errors import AutoVisionError, CorruptObject
from autovision.records.datasets import DatasetVersion
from autovision.store import captures, keys
from autovision.store.protocol import Store

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_KEY = re.compile(r'"((?:searches|models|weights|datasets|evaluations)/[^"\\]+/[^"\\/]+)"')
_WITHOUT = re.compile(r"deployments/[^/]+/labels/")
"""records that refer to no object, and of which there may be very many"""


@dataclass
class References:
    """What the records of a store say.

    Attributes:
        wanted: key that has to be there -> key of a record that says so.
        keys: every key that any record names.
        digests: every digest that any record, data set or captured request names.
        unreadable: key of what could not be read -> why; what it refers to is not known.
    """

    wanted: dict[str, str] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)

    def want(self, key: str, by: str) -> None:
        self.wanted.setdefault(key, by)


def read(store: Store) -> References:
    """All references in a store."""
    found = References()
    records = (key for key in store.list() if key.endswith(".json") and not _WITHOUT.match(key))
    for key, (data, _) in store.get_many(records):
        try:
            text = data.decode()
            said = json.loads(text)
        except ValueError as error:
            found.unreadable[key] = f"it is not JSON: {error}"
            continue
        found.digests.update(_DIGEST.findall(text))
        found.keys.update(_KEY.findall(text))
        try:
            for wanted in _wanted(key.split("/"), said):
                found.want(wanted, key)
            if _is_version(key):
                _of_version(store, key, DatasetVersion.model_validate(said), found)
        except (KeyError, TypeError, AttributeError, ValueError, AutoVisionError) as error:
            found.unreadable[key] = " ".join(str(error).split())[:300] or type(error).__name__
    for deployment in sorted({key.split("/")[1] for key in store.list(keys.DEPLOYMENTS)}):
        _of_captures(store, deployment, found)
    return found


def _wanted(parts: list[str], said: dict[str, Any]) -> Iterator[str]:
    """The keys that have to be there, according to one record."""
    match parts:
        case ["models", model, "model.json"]:
            yield from (keys.model_file(model, name, digest) for name, digest in said["files"].items())
            yield _version_key(*said["lineage"]["dataset"].split("@"))
            if refit := said["lineage"].get("refit"):
                yield refit["before_key"]
        case ["models", model, "int8", _]:
            yield from (keys.model_file(model, name, digest) for name, digest in said["files"].items())
        case ["weights", "names", _]:
            yield keys.weights_file(said["digest"])
        case ["searches", _, "request.json"]:
            yield _version_key(said["dataset"], said["dataset_version"])
            if said.get("parent_model"):
                yield keys.model(said["parent_model"])
        case ["searches", _, "state.json"] if said.get("model"):
            yield keys.model(said["model"])
        case ["searches", _, "trials" | "begun" | "finishes", _]:
            named = [said.get(name) for name in ("weights_key", "chosen_key", "final_key")]
            yield from (key for key in named if key)
        case ["deployments", _, "deployment.json"]:
            rollout = said.get("rollout") or {}
            models = [said.get("model"), *said.get("previous", ()), rollout.get("model")]
            yield from (keys.model(model) for model in models if model)


def _of_version(store: Store, key: str, version: DatasetVersion, found: References) -> None:
    found.want(version.manifest_key, key)
    try:
        rows = manifest.read(store, version)
    except CorruptObject as error:
        found.unreadable[version.manifest_key] = str(error)
        return
    except AutoVisionError as error:
        found.unreadable.setdefault(version.manifest_key, str(error))
        return
    for row in rows:
        found.digests.add(row.image)
        found.want(keys.image(row.image), version.manifest_key)


def _of_captures(store: Store, deployment: str, found: References) -> None:
    for key in captures.files(store, deployment):
        try:
            # They need not be there: images of requests are deleted when their time has come.
            found.digests.update(capture.image for capture in captures.read_file(store, key))
        except captures.Unreadable as error:
            found.unreadable[key] = str(error)


def _is_version(key: str) -> bool:
    return re.fullmatch(r"datasets/[^/]+/versions/\d+\.json", key) is not None


def _version_key(name: str, version: str | int) -> str:
    return keys.dataset_version(name, int(version))
