"""A model version as files: one safetensors file of all weights, and the record that rebuilds the rest.

The record (`model.json`) is written last: a bundle without it does not exist.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from autovision.errors import CorruptObject
from autovision.model import backbone as backbones
from autovision.model.network import Network
from autovision.model.stages import channels_of
from autovision.model.version import read_file
from autovision.records.models import ModelVersion
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import AlreadyExists, Store

WEIGHTS_FILE = "model.safetensors"
REFERENCE_FILE = "reference.safetensors"
"""embeddings of held-out images, (N, D) float32: what drift is measured against"""


def build_network(config: TrialConfig, classes: int) -> Network:
    """The network of a configuration with untrained weights, in evaluation mode."""
    prep = backbones.preprocessing(config)
    staged = backbones.structure_of(backbones.create(config), config)
    channels = channels_of(staged, prep.height, prep.width)
    return Network(staged, config, prep, channels, classes).eval()


def weights_of(module: nn.Module) -> bytes:
    """All tensors of a network as a safetensors file."""
    return tensors_file(module.state_dict())


def tensors_file(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as a safetensors file."""
    return bytes(save_tensors({n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}))


def reference_bytes(embeddings: np.ndarray) -> bytes:
    """The reference embeddings as a safetensors file."""
    tensor = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    return bytes(save_tensors({"embeddings": tensor}))


def publish(store: Store, version: ModelVersion, files: dict[str, bytes]) -> None:
    """Write a bundle's files, then reveal it. Publishing the same version again does nothing."""
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != version.files[name]:
            raise CorruptObject(f"file {name!r} of model {version.id!r} is not the one that its record names")
        store.put_immutable(keys.model_file(version.id, name, version.files[name]), data)
    try:
        records.create(store, keys.model(version.id), version)
    except AlreadyExists:
        return


def load_network(store: Store, version: ModelVersion) -> Network:
    """The trained network of a version, in evaluation mode. Raises `CorruptObject`."""
    network = build_network(TrialConfig.model_validate(version.lineage.config), len(version.classes))
    network.load_state_dict(load_tensors(read_file(store, version, WEIGHTS_FILE)))
    return network.eval()


def load_reference(store: Store, version: ModelVersion) -> np.ndarray:
    """The version's reference embeddings, (N, D) float32."""
    reference: np.ndarray = load_tensors(read_file(store, version, REFERENCE_FILE))["embeddings"].numpy()
    return reference
