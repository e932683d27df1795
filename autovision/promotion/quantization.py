"""int8 by static quantization after training, and the conditions on which it may serve.

NNCF quantizes OpenVINO's form of the network, calibrated on images that the model was trained on. What comes of it is
compared with the runtime that serves otherwise, on this node: accuracy on the validation split, image by image;
closeness to PyTorch; speed; size. The verdict is stored with its numbers; `autovision.registry.runtimes` reads it.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from autovision.dataset import catalog, manifest
from autovision.dataset.loader import load_pixels
from autovision.dataset.manifest import Row
from autovision.errors import InvalidInput
from autovision.model import bundle, formats, runtimes
from autovision.model.compiled import OpenVinoModule, default_threads
from autovision.model.inference import native_precision, openvino_file
from autovision.model.network import Network
from autovision.model.version import read_version
from autovision.promotion import nncf_process
from autovision.records.base import now
from autovision.records.datasets import Split
from autovision.records.models import Interval, ModelVersion
from autovision.records.runtimes import Check, Parity, Quantized, Timing
from autovision.registry import parity, quantized
from autovision.registry.evaluate import truth
from autovision.registry.runtimes import WORTH, OnThisNode
from autovision.significance import LEVEL, can_bound, paired_lower_bound, z_of
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, Store

MARGIN = 0.02
"""of accuracy, that int8 must be shown not to lose"""

_CPU = Path("/proc/cpuinfo")
_CALIBRATION = 300
"""images; NNCF's own default"""
_MOST = 2000
"""images that accuracy is compared on"""
_IMAGES = 64
"""images that are compared with PyTorch"""


@dataclass(frozen=True)
class Measured:
    """int8 and the runtime that serves otherwise, measured side by side."""

    gained: int
    """images that only int8 gets right"""
    lost: int
    """images that only the other one does"""
    images: int
    timing: Timing
    timing_before: Timing
    size_bytes: int
    size_bytes_before: int
    parity: Parity

    @property
    def change(self) -> Interval:
        """Of accuracy, with the one-sided bounds of both sides (Tango 1998)."""
        z = z_of(1 - LEVEL)
        return Interval(
            value=(self.gained - self.lost) / self.images,
            low=paired_lower_bound(self.gained, self.lost, self.images, z),
            high=-paired_lower_bound(self.lost, self.gained, self.images, z),
        )

    @property
    def speedup(self) -> float:
        return runtimes.speedup(self.timing_before, self.timing)


def checks(found: Measured) -> tuple[Check, ...]:
    """The conditions of int8, each with what was found."""
    return (_accuracy(found), _closeness(found), _speed(found), _size(found))


def _accuracy(found: Measured) -> Check:
    change = found.change
    told = f"accuracy changes by {100 * change.value:+.1f} points [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    margin = f"{100 * MARGIN:g} points"
    if change.low > -MARGIN:
        return Check(name="accuracy", passed=True, reason=f"{told}: less than {margin} are lost")
    if not can_bound(found.gained, found.lost, found.images, MARGIN):
        why = f"{found.images} images cannot show that less than {margin} are lost"
    else:
        why = f"that less than {margin} are lost is not shown"
    return Check(name="accuracy", passed=False, reason=f"{told}: {why}")


def _closeness(found: Measured) -> Check:
    allowed = found.parity.bound
    reason = (
        f"{found.parity}; allowed are {allowed.agreement:.0%}, {allowed.max_difference:g} and "
        f"{allowed.embedding_shift:g}"
    )
    return Check(name="closeness to PyTorch", passed=found.parity.within, reason=reason)


def _speed(found: Measured) -> Check:
    one, batch = (
        found.timing_before.one_ms / found.timing.one_ms,
        found.timing_before.batch_ms / found.timing.batch_ms,
    )
    reason = f"{found.speedup:.2f} times as fast (one image {one:.2f}, a batch {batch:.2f}); {WORTH:g} is asked for"
    return Check(name="faster", passed=found.speedup >= WORTH, reason=reason)


def _size(found: Measured) -> Check:
    less = 1 - found.size_bytes / found.size_bytes_before
    reason = (
        f"{found.size_bytes / 1e6:.2f} MB instead of {found.size_bytes_before / 1e6:.2f}, {less:.0%} less"
    )
    return Check(name="smaller", passed=found.size_bytes < found.size_bytes_before, reason=reason)


# --------------------------------------------------------------------------------------------------- acting


def quantize(store: Store, model_id: str, *, threads: int | None = None) -> Quantized:
    """Make a model's int8 form and judge it on this node; a minute or two. The verdict replaces an earlier one.

    Raises:
        NotFound: no such model, or its data set is gone.
        PackageMissing: NNCF is not installed.
        InvalidInput: the data set has no validation images, or this node serves from a GPU.
        AutoVisionError: NNCF cannot quantize the network.
    """
    formats.require(("nncf",), what="int8", extra="int8")
    threads = threads or default_threads()
    model = read_version(store, model_id)
    here = OnThisNode(store, model, threads)
    if here.evaluated.startswith("torch"):
        raise InvalidInput("int8 is for CPUs, and this node serves from a GPU; run it on a node without one")
    rows = _rows(store, model)
    before = here.chosen(measure=True, int8=False)
    network = bundle.load_network(store, model)
    calibration = rows[Split.TRAIN][:_CALIBRATION]
    with tempfile.TemporaryDirectory(prefix="autovision-int8-") as scratch:
        path = Path(scratch) / quantized.NETWORK_FILE
        _write_int8(network, here.size, _pixels(store, model, calibration, threads), path)
        compiled = OpenVinoModule(path, native_precision(), threads)
        judged = rows[Split.VALIDATION][:_MOST]
        pixels, true = _pixels(store, model, judged, threads), _truth(model, judged)
        right = [
            (parity.labels(model, parity.answers(model, each, pixels).probabilities) == true).all(1)
            for each in (here.compiled(before), compiled)
        ]
        timed = runtimes.timings({before: here.compiled(before), "openvino-int8": compiled}, here.size)
        found = Measured(
            gained=int((right[1] & ~right[0]).sum()),
            lost=int((right[0] & ~right[1]).sum()),
            images=len(judged),
            timing=timed["openvino-int8"],
            timing_before=timed[before],
            size_bytes=_size_bytes(path),
            size_bytes_before=_size_bytes(openvino_file(network, here.size)),
            parity=_parity(store, model, network, compiled, threads),
        )
        verdict = Quantized(
            model=model.id,
            node=runtimes.node(threads),
            files=_keep(store, model, path),
            calibrated_on=len(calibration),
            dataset=model.lineage.dataset,
            split=Split.VALIDATION,
            images=found.images,
            accuracy=float(right[1].mean()),
            accuracy_before=float(right[0].mean()),
            accuracy_change=found.change,
            compared_with=before,
            timing=found.timing,
            timing_before=found.timing_before,
            speedup=found.speedup,
            size_bytes=found.size_bytes,
            size_bytes_before=found.size_bytes_before,
            parity=found.parity,
            checks=checks(found),
            created_at=now(),
        )
    key = quantized.key_of(model.id, threads)
    try:
        records.create(store, key, verdict)
    except AlreadyExists:
        records.update(store, key, Quantized, lambda _: verdict)
    return verdict


def _rows(store: Store, model: ModelVersion) -> dict[Split, list[Row]]:
    """Images to calibrate and to judge on, in the order of their digests."""
    version = catalog.get(store, model.lineage.dataset)
    rows = manifest.read(store, version)
    found = {split: [row for row in rows if row.split is split] for split in (Split.TRAIN, Split.VALIDATION)}
    for split, images in found.items():
        if not images:
            raise InvalidInput(
                f"data set {version.id} has no {split} images, which int8 needs; import it with some"
            )
    return found


def _pixels(store: Store, model: ModelVersion, rows: list[Row], threads: int) -> np.ndarray:
    return load_pixels(store, [row.image for row in rows], model.preprocessing, threads=threads)


def _truth(model: ModelVersion, rows: list[Row]) -> np.ndarray:
    """As `parity.labels` gives answers."""
    true = truth(rows, model.classes, multi_label=model.multi_label)
    return true.astype(bool) if model.multi_label else true[:, None]


def _write_int8(network: Network, size: tuple[int, int], pixels: np.ndarray, path: Path) -> None:
    """Quantize weights and activations by the ranges that the images give. Raises `AutoVisionError`."""
    nncf_process.quantize(
        Path(openvino_file(network, size)),
        pixels,
        path,
        transformer="tokens" in network.backbone.layouts,
        halved=saturates(_CPU.read_text() if _CPU.is_file() else ""),
    )


def saturates(cpuinfo: str) -> bool:
    """Whether a processor may add products of bytes in 16 bits, which overflow: unless it has VNNI or AMX.

    Weights are quantized to half of the range then; otherwise answers and embeddings are far off.
    """
    return not any(flag in cpuinfo for flag in ("vnni", "amx_int8"))


def _parity(
    store: Store, model: ModelVersion, network: Network, compiled: OpenVinoModule, threads: int
) -> Parity:
    sample = parity.sample(store, model, _IMAGES)
    pixels = parity.pixels_of(store, model, sample, threads)
    reference, found = parity.eager(model, network, pixels), parity.answers(model, compiled, pixels)
    return parity.compare(model, sample, reference, found, runtimes.BOUNDS["int8"])


def _size_bytes(path: Path) -> int:
    """Of a network in OpenVINO's form, weights included."""
    return path.stat().st_size + path.with_suffix(".bin").stat().st_size


def _keep(store: Store, model: ModelVersion, path: Path) -> dict[str, str]:
    """Store the network's files with the model; name -> digest."""
    digests = {}
    for each in (path, path.with_suffix(".bin")):
        data = each.read_bytes()
        digests[each.name] = hashlib.sha256(data).hexdigest()
        store.put_immutable(keys.model_file(model.id, each.name, digests[each.name]), data)
    return digests
