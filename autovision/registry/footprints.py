"""What serving a model takes on this node and a runtime: measured once for its architecture and a kind of node."""

from __future__ import annotations

from pathlib import Path

from autovision.model import runtimes
from autovision.model.compiled import default_threads
from autovision.model.footprint import Footprint, architecture_of, measure
from autovision.records.base import digest_of
from autovision.records.models import ModelVersion
from autovision.records.runtimes import AUTO, Runtime
from autovision.registry import quantized
from autovision.registry.runtimes import OnThisNode
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store


def as_served(store: Store, model: ModelVersion, wanted: str = AUTO) -> tuple[Runtime, Footprint]:
    """The runtime that serves a model here, and what that takes: half a minute where it is not known yet.

    Args:
        wanted: as in `autovision.registry.runtimes.load`.

    Raises:
        RuntimeRefused: a runtime that was asked for may not serve it.
        InvalidInput: it is none of this node.
        AutoVisionError: it could not be measured.
    """
    here = OnThisNode(store, model, default_threads())
    runtime = here.chosen(measure=True) if wanted == AUTO else here.asked_for(wanted)
    return runtime, of_runtime(store, model, runtime)


def of_runtime(store: Store, model: ModelVersion, runtime: Runtime) -> Footprint:
    """What serving it on a runtime takes here. Raises `AutoVisionError` where that could not be measured."""
    config, classes = TrialConfig.model_validate(model.lineage.config), len(model.classes)
    int8: Path | None = None
    files: list[object] = []
    if runtime == "openvino-int8":
        verdict = quantized.read(store, model.id, default_threads())
        if verdict is not None:
            int8, files = quantized.file_of(store, model, verdict), [verdict.files]
    key = key_of(config, classes, runtime, *files)
    try:
        return records.read(store, key, Footprint)
    except KeyNotFound:
        return records.create_or_read(store, key, measure(config, classes, runtime, int8=int8))[0]


def key_of(config: TrialConfig, classes: int, runtime: Runtime, *files: object) -> str:
    """Where it is kept what a network takes on a runtime of this kind of node; `files`: of one in int8."""
    architecture = architecture_of(config).model_dump(mode="json")
    made_of = [architecture, classes, runtime, runtimes.node(default_threads()), runtimes.versions()]
    return keys.footprint(digest_of([*made_of, *files]))


def node() -> str:
    """The kind of this node, in words."""
    return runtimes.node(default_threads())
