"""Models that are ready on this node: converted, compared and chosen before, so that they answer without PyTorch.

`autovision.registry.runtimes` decides what serves a model; where that is OpenVINO or ONNX Runtime, it notes here which
file, in which precision, and whether images are answered in lanes. Whoever finds the note loads the model in a fraction
of the time and of the memory. A note holds for the very model, wish and versions of everything that it was made with;
it lies beside the converted networks, and may be deleted.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from autovision.model import converted
from autovision.model.compiled import OnnxModule, OpenVinoModule, Precision
from autovision.model.predictor import Predictor, Scorer
from autovision.model.version import read_version
from autovision.provenance import code_version, processor
from autovision.records.base import Record, digest_of
from autovision.records.models import ModelVersion
from autovision.records.runtimes import Lanes, Runtime
from autovision.store import keys
from autovision.store.protocol import Store

_MOST = 200
"""notes that are kept"""
SHARED_BELOW = 200e6
"""bytes of a model that is in memory twice, so that images can be shared out among threads"""

_log = logging.getLogger(__name__)


class Note(Record):
    """What serves a model on this node."""

    model: str
    runtime: Runtime
    precision: Precision
    file: str
    """the converted network"""
    lanes: Lanes | None = None
    """None: batches are better"""
    sure: bool = True
    """whether what there is to measure was measured, or it only serves for now"""

    def opened(self, threads: int) -> OnnxModule | OpenVinoModule:
        """The network, compiled. Raises OSError, ImportError, RuntimeError, or what its engine raises."""
        if self.runtime == "onnx-f32":
            return OnnxModule(Path(self.file), threads)
        return OpenVinoModule(Path(self.file), self.precision, threads)


def load(
    store: Store, model_id: str, threads: int, runtime: str, *, measure: bool = False
) -> Predictor | None:
    """A model that is ready; None: it is not, and `runtimes.load` makes it so.

    Args:
        runtime: what was wished for, as in `runtimes.load`.
        measure: whether it has to be what was measured.

    Raises:
        NotFound: no such model.
    """
    if has_gpu():
        return None
    version = read_version(store, model_id)
    path = _place(store, version, threads, runtime)
    try:
        note = Note.model_validate_json(path.read_bytes())
        if measure and not note.sure:
            return None
        compiled = note.opened(threads)
        shared = threads > 1 and version.size_bytes < SHARED_BELOW
        narrow = Scorer(compiled.side_by_side(threads)) if shared else None
    except FileNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - engines fail in many ways; it is made ready again
        _log.warning("what is noted of model %s cannot be used: %s", model_id, error)
        return None
    with suppress(OSError):  # both have been used now
        os.utime(path)
        os.utime(Path(note.file).parent)
    _log.info("model %s is served by %s, %s", model_id, note.runtime, note.lanes or "in batches")
    return Predictor.warm(version, Scorer(compiled), threads, narrow, note.lanes)


def note(
    store: Store,
    version: ModelVersion,
    threads: int,
    wished: str,
    runtime: Runtime,
    compiled: object,
    lanes: Lanes | None = None,
    *,
    sure: bool = True,
) -> None:
    """Remember what serves a model here, where that can be loaded without PyTorch.

    Args:
        sure: see `Note`.
    """
    if not isinstance(compiled, OnnxModule | OpenVinoModule) or has_gpu():
        return
    file = str(compiled.path)
    made = Note(
        model=version.id, runtime=runtime, precision=compiled.precision, file=file, lanes=lanes, sure=sure
    )
    path = _place(store, version, threads, wished)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{secrets.token_hex(8)}")
        scratch.write_text(made.model_dump_json())
        scratch.replace(path)
        for old in sorted(path.parent.glob("*.json"), key=lambda each: each.stat().st_mtime)[:-_MOST]:
            old.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("it cannot be noted that model %s is ready: %s", version.id, error)


def has_gpu() -> bool:
    """Whether this node seems to have a GPU, on which PyTorch serves; PyTorch is not asked."""
    return any(Path("/dev").glob("nvidia[0-9]*"))


def _place(store: Store, version: ModelVersion, threads: int, wished: str) -> Path:
    made_of = [
        version.model_dump(mode="json"),
        # A verdict on int8 may come later, and change.
        [blob.etag for _, blob in store.get_many(store.list(keys.quantized_all(version.id)))],
        threads,
        wished,
        code_version(),
        [_version(name) for name in ("openvino", "onnxruntime")],
        processor(),
    ]
    return converted.root("ready") / f"{digest_of(made_of)[:32]}.json"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
