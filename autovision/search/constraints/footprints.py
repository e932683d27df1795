"""Footprints that were measured once are remembered in the store, for nodes of the same kind."""

from __future__ import annotations

import os
from importlib.metadata import version

from autovision.model.footprint import Footprint, architecture_of
from autovision.records.base import digest_of
from autovision.search.constraints.limits import Measure
from autovision.search.costing.node import this_node
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store


def remembered(store: Store, classes: int, measure: Measure) -> Measure:
    """As `measure`, but what the store knows of an architecture on such a node, and this OpenVINO, is not measured."""
    node = this_node(threads=len(os.sched_getaffinity(0))).model_dump(mode="json")

    def of(config: TrialConfig) -> Footprint:
        architecture = architecture_of(config).model_dump(mode="json")
        key = keys.footprint(digest_of([architecture, classes, node, version("openvino")]))
        try:
            return records.read(store, key, Footprint)
        except KeyNotFound:
            return records.create_or_read(store, key, measure(config))[0]

    return of
