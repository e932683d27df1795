"""Footprints that were measured once are remembered in the store, for nodes of the same kind."""

from __future__ import annotations

import os
from importlib.metadata import version

from autovision.errors import InvalidInput
from autovision.model import runtimes
from autovision.model.footprint import Footprint, architecture_of
from autovision.model.inference import native_precision
from autovision.records.base import digest_of
from autovision.records.runtimes import EVALUATED, Runtime, named
from autovision.registry import footprints as served
from autovision.search.constraints.limits import Measure
from autovision.search.costing.node import this_node
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store


def runtime_here(name: str) -> Runtime | None:
    """The runtime that a request names; None: the one that models are evaluated with.

    Raises `InvalidInput` for one that this node has not.
    """
    if name == EVALUATED:
        return None
    here = runtimes.candidates(native_precision())
    if named(name) not in here:
        raise InvalidInput(
            f"runtime {name!r} is none of those that this node has, {', '.join(here)}; name one of them, or search on "
            "a node like the one that will serve"
        )
    return named(name)


def remembered(store: Store, classes: int, measure: Measure, runtime: Runtime | None = None) -> Measure:
    """As `measure`, but what the store knows of an architecture on such a node, and these libraries, is not measured.

    Args:
        runtime: that `measure` measures on; None: the one that models are evaluated with.
    """
    node = this_node(threads=len(os.sched_getaffinity(0))).model_dump(mode="json")

    def key_of(config: TrialConfig) -> str:
        if runtime is not None:
            return served.key_of(config, classes, runtime)
        architecture = architecture_of(config).model_dump(mode="json")
        return keys.footprint(digest_of([architecture, classes, node, version("openvino")]))

    def of(config: TrialConfig) -> Footprint:
        key = key_of(config)
        try:
            return records.read(store, key, Footprint)
        except KeyNotFound:
            return records.create_or_read(store, key, measure(config))[0]

    return of
