"""A model as a folder that runs anywhere without this package, compared with PyTorch before it is there.

Written beside its place under another name and revealed by a rename: a folder that exists is whole, and was found to
agree.
"""

from __future__ import annotations

import errno
import hashlib
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import get_args

import numpy as np

from autovision.errors import AutoVisionError, Conflict, InvalidInput, near
from autovision.model import bundle, formats
from autovision.model.network import Network
from autovision.model.runtimes import BOUNDS
from autovision.model.standalone import __file__ as _standalone
from autovision.model.version import read_version
from autovision.provenance import code_version
from autovision.records.base import now
from autovision.records.models import ModelVersion
from autovision.records.runtimes import ExportFormat, ExportManifest, Parity
from autovision.registry import parity
from autovision.registry.parity import Answers, Sample
from autovision.store import keys
from autovision.store.protocol import Store

FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
MANIFEST_FILE, LOADER_FILE, SHARED_FILE, NEEDS_FILE = (
    "manifest.json",
    "load.py",
    "portable.py",
    "requirements.txt",
)

_IMAGES = 64
_NEEDS: dict[ExportFormat, tuple[str, ...]] = {
    "onnx": ("onnxruntime", "numpy", "pillow"),
    "openvino": ("openvino", "numpy", "pillow"),
    "pytorch": ("torch", "safetensors", "numpy", "pillow"),
}
_PATIENCE_S = 600.0


class ExportRefused(AutoVisionError):
    """The exported model does not answer as PyTorch does; nothing was written. Choose another format."""


def export(store: Store, model_id: str, folder: Path, format: str = "onnx") -> ExportManifest:
    """Write a model version to `folder`, which must not exist, or be empty; what its manifest says.

    The loader that lies in the folder is run, in a process of its own, on images of the model's data set as they are
    in the store; what it prints is compared with this package's decoding and eager PyTorch.

    Raises:
        NotFound: no such model, or its data set is gone.
        InvalidInput: an unknown format, or a folder that cannot be written to.
        PackageMissing: the format needs a package that is not installed.
        NotConvertible: the network cannot be written in this format.
        ExportRefused: it does not agree with PyTorch. Nothing is left behind.
    """
    chosen = _checked_format(format)
    _check_target(folder)
    formats.require(_modules(chosen), what=f"an export as {chosen}", extra="onnx")
    model = read_version(store, model_id)
    network = bundle.load_network(store, model)
    sample = parity.sample(store, model, _IMAGES)
    scratch = _scratch_beside(folder)
    try:
        manifest = _write(scratch, model, network, chosen)
        reference = parity.eager(model, network, parity.pixels_of(store, model, sample, threads=2))
        found = parity.compare(
            model, sample, reference, _loaders_answers(store, model, scratch, sample), BOUNDS["f32"]
        )
        if not found.within:
            raise ExportRefused(_refusal(model, chosen, found))
        manifest = manifest.with_(parity=found)
        (scratch / MANIFEST_FILE).write_bytes(manifest.to_json() + b"\n")
        _reveal(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return manifest


# ------------------------------------------------------------------------------------------------ writing


def _write(folder: Path, model: ModelVersion, network: Network, format: ExportFormat) -> ExportManifest:
    """Everything, with a manifest that does not tell of any comparison yet."""
    size = model.preprocessing.height, model.preprocessing.width
    match format:
        case "onnx":
            formats.write_onnx(network, size, folder / formats.ONNX_FILE)
        case "openvino":
            formats.write_openvino(network, size, folder / formats.OPENVINO_FILE)
        case "pytorch":
            formats.write_pytorch(network, size, folder)
    source = Path(_standalone).parent
    shutil.copyfile(source / SHARED_FILE, folder / SHARED_FILE)
    shutil.copyfile(source / f"load_{format}.py", folder / LOADER_FILE)
    packages = {name: metadata.version(name) for name in _NEEDS[format]}
    needed = "".join(f"{name}>={version.partition('+')[0]}\n" for name, version in packages.items())
    (folder / NEEDS_FILE).write_text(needed, encoding="utf-8")
    manifest = ExportManifest(
        format=format,
        model=model.id,
        classes=model.classes,
        multi_label=model.multi_label,
        positive_class=model.positive_class,
        preprocessing=model.preprocessing,
        temperature=model.temperature,
        decision=model.decision,
        evaluated_precision=model.precision,
        architecture=model.lineage.config,
        dataset=model.lineage.dataset,
        dataset_digest=model.lineage.dataset_digest,
        weights_license=model.lineage.backbone_weights_license,
        code_version=code_version(),
        packages=packages,
        files={path.name: _digest(path) for path in sorted(folder.iterdir())},
        parity=None,
        created_at=now(),
    )
    (folder / MANIFEST_FILE).write_bytes(manifest.to_json())
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _modules(format: ExportFormat) -> list[str]:
    """What is imported under the names of what the format needs, here and where it is loaded."""
    more = ["onnx", "onnxscript"] if format == "onnx" else []
    return [*more, *(name for name in _NEEDS[format] if name != "pillow")]


# ---------------------------------------------------------------------------------------------- comparing


def _loaders_answers(store: Store, model: ModelVersion, folder: Path, sample: Sample) -> Answers:
    """What the folder's own loader says of the sample's image files."""
    with tempfile.TemporaryDirectory(prefix="autovision-images-") as scratch:
        paths = []
        for number, image in enumerate(sample.images):
            paths.append(Path(scratch) / f"{number:04d}")
            paths[-1].write_bytes(store.get(keys.image(image)).data)
        printed = _run(model, folder, paths)
    lines = [json.loads(line) for line in printed.splitlines()]
    said = [[of[name] for name in model.classes] for _, _, of in lines]
    probabilities = np.array(said, dtype=np.float64)
    if probabilities.shape != (len(paths), len(model.classes)) or not _labels_follow(
        model, lines, probabilities
    ):
        raise ExportRefused(
            f"the loader of the exported model of {model.id!r} does not decide as the model does; nothing was written"
        )
    return Answers(probabilities, None)


def _run(model: ModelVersion, folder: Path, images: list[Path]) -> str:
    """What the loader prints of the images."""
    try:
        done = subprocess.run(
            # -B: nothing of Python's own is left in the folder.
            [sys.executable, "-B", str(folder / LOADER_FILE), *map(str, images)],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportRefused(
            f"the exported model of {model.id!r} has not answered {len(images)} images in {_PATIENCE_S:g} s; nothing "
            "was written, choose another format"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ExportRefused(
            f"the exported model of {model.id!r} does not run: {last}; nothing was written, choose another format"
        )
    return done.stdout


def _labels_follow(model: ModelVersion, lines: list[list[object]], probabilities: np.ndarray) -> bool:
    """Whether the loader's labels are those of its probabilities by the model's decision rule."""
    decided = parity.labels(model, probabilities)
    for (_, label, _), row in zip(lines, decided, strict=True):
        expected: object = model.classes[int(row[0])]
        if model.multi_label:
            expected = [name for name, yes in zip(model.classes, row, strict=True) if yes]
        if label != expected:
            return False
    return True


def _refusal(model: ModelVersion, format: ExportFormat, found: Parity) -> str:
    bound = found.bound
    return (
        f"model {model.id!r} as {format} does not agree with PyTorch: {found}, where {bound.max_difference:g} and "
        f"{bound.agreement:.0%} are allowed; nothing was written, choose another format of {', '.join(FORMATS)}"
    )


# ---------------------------------------------------------------------------------------------- the folder


def _checked_format(format: str) -> ExportFormat:
    if format not in FORMATS:
        raise InvalidInput(f"no format {format!r}; choose one of {', '.join(FORMATS)}{near(format, FORMATS)}")
    return format


def _check_target(folder: Path) -> None:
    """Raises `InvalidInput` before any work."""
    if folder.is_symlink() or folder.is_file():
        raise InvalidInput(f"{str(folder)!r} is not a folder; name one that does not exist yet")
    if folder.is_dir() and any(folder.iterdir()):
        raise _not_empty(folder)


def _not_empty(folder: Path) -> InvalidInput:
    return InvalidInput(
        f"the folder {str(folder)!r} is not empty; empty it, or name one that does not exist yet"
    )


def _scratch_beside(folder: Path) -> Path:
    """A new folder on the same file system, with the rights that a new folder has."""
    parent = folder.absolute().parent
    scratch = parent / f".{folder.name}-{secrets.token_hex(8)}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        scratch.mkdir()
    except OSError as error:
        raise InvalidInput(
            f"nothing can be written in {str(parent)!r}: {error.strerror}; choose another place"
        ) from error
    return scratch


def _reveal(scratch: Path, folder: Path) -> None:
    """In one step; what somebody else put there meanwhile stays."""
    try:
        scratch.rename(folder)  # takes the place of an empty folder, too
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _not_empty(folder) from error
        raise Conflict(
            f"the export cannot be put at {str(folder)!r}: {error.strerror}; choose another place"
        ) from error
