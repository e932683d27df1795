"""Model versions as files."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from autovision.errors import CorruptObject, NotFound
from autovision.model import backbone as backbones
from autovision.model import bundle
from autovision.model.network import Network
from autovision.model.version import read_version
from autovision.records.models import Lineage, ModelVersion
from autovision.space.config import TrialConfig
from autovision.store import MemoryStore, keys
from autovision.store.protocol import Store

if TYPE_CHECKING:
    from tests.unit.conftest import History


def trained(config: TrialConfig, seed: int = 0) -> Network:
    """A network whose every tensor, buffers included, is another one than a new network has."""
    network = bundle.build_network(config, 3)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.05 * torch.rand(tensor.shape, generator=generator))
    return network


def version_of(config: TrialConfig, files: dict[str, bytes], model_id: str = "shapes-m-1") -> ModelVersion:
    lineage = Lineage(
        search="s",
        trial="t",
        dataset="shapes@1",
        dataset_digest="0" * 64,
        backbone=config.backbone,
        backbone_weights_digest="0" * 64,
        backbone_weights_source="random",
        backbone_weights_license="none",
        space_fingerprint="0" * 64,
        config=config.model_dump(mode="json"),
        seed=0,
        code_version="test",
        packages={},
        parents=(),
    )
    return ModelVersion(
        id=model_id,
        dataset="shapes",
        classes=("circle", "square", "star"),
        positive_class=None,
        preprocessing=backbones.preprocessing(config),
        temperature=1.0,
        precision="f32",
        metrics={},
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        size_bytes=sum(map(len, files.values())),
        parameters=1,
        lineage=lineage,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def config_of(backbone: str = "test_resnet", **changes: object) -> TrialConfig:
    return TrialConfig.model_validate(
        {"backbone": backbone, "weights": "random", "resolution": 64, "taps": 3, **changes}
    )


def files_of(network: Network, reference: np.ndarray) -> dict[str, bytes]:
    return {
        bundle.WEIGHTS_FILE: bundle.weights_of(network),
        bundle.REFERENCE_FILE: bundle.reference_bytes(reference),
    }


@pytest.fixture
def published() -> tuple[MemoryStore, ModelVersion, dict[str, bytes]]:
    config, store = config_of(), MemoryStore()
    files = files_of(trained(config), np.random.default_rng(0).normal(size=(5, 4)))
    version = version_of(config, files)
    bundle.publish(store, version, files)
    return store, version, files


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key).data for key in store.list()}


def damage(store: MemoryStore, version: ModelVersion, name: str) -> None:
    key = keys.model_file(version.id, name, version.files[name])
    data = store.get(key).data
    store.delete(key)
    store.put_new(key, data[:-1])


@pytest.mark.parametrize(
    "config",
    [
        config_of("test_resnet", pooling="avgmax", head="mlp"),
        config_of("test_efficientnet", drop_stages=2, pooling="gem", head="cosine"),
        config_of("test_vit", unfreeze=2, pooling="max"),
    ],
    ids=lambda config: config.backbone,
)
def test_a_published_network_comes_back_bit_for_bit(config: TrialConfig) -> None:
    store, network = MemoryStore(), trained(config)
    files = files_of(network, np.zeros((1, 1)))
    version = version_of(config, files)
    bundle.publish(store, version, files)
    loaded = bundle.load_network(store, read_version(store, version.id))
    assert not loaded.training
    prep = version.preprocessing
    pixels = torch.randint(0, 256, (4, prep.height, prep.width, 3), dtype=torch.uint8)
    with torch.inference_mode():
        for mine, theirs in zip(network(pixels), loaded(pixels), strict=True):
            assert torch.equal(mine, theirs)
    assert bundle.weights_of(loaded) == files[bundle.WEIGHTS_FILE]


def test_reference_embeddings_come_back(
    published: tuple[MemoryStore, ModelVersion, dict[str, bytes]],
) -> None:
    store, version, _ = published
    found = bundle.load_reference(store, version)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))


def test_publishing_again_does_nothing(
    published: tuple[MemoryStore, ModelVersion, dict[str, bytes]],
) -> None:
    store, version, files = published
    before = contents(store)
    bundle.publish(store, version, files)
    later = version.with_(temperature=2.0)
    bundle.publish(store, later, files)
    assert contents(store) == before
    assert read_version(store, version.id) == version


def test_a_bundle_without_its_record_does_not_exist(
    published: tuple[MemoryStore, ModelVersion, dict[str, bytes]],
) -> None:
    store, version, files = published
    store.delete(keys.model(version.id))
    with pytest.raises(NotFound, match=f"no model {version.id!r}"):
        read_version(store, version.id)
    bundle.publish(store, version, files)
    assert read_version(store, version.id) == version


def test_what_a_killed_publication_left_does_no_harm_to_the_next_one() -> None:
    """The same model may have other reference embeddings on another machine, to the last bit."""
    config, store = config_of(), MemoryStore()
    network = trained(config)
    left, right = (files_of(network, np.full((5, 4), value)) for value in (1.0, 2.0))
    for name, data in left.items():  # written, and never revealed
        store.put_immutable(keys.model_file("shapes-m-1", name, version_of(config, left).files[name]), data)
    version = version_of(config, right)
    bundle.publish(store, version, right)
    assert (bundle.load_reference(store, version) == 2.0).all()
    bundle.load_network(store, version)


def test_a_damaged_file_is_never_loaded_and_can_be_published_again(
    published: tuple[MemoryStore, ModelVersion, dict[str, bytes]],
) -> None:
    store, version, files = published
    damage(store, version, bundle.WEIGHTS_FILE)
    damage(store, version, bundle.REFERENCE_FILE)
    with pytest.raises(CorruptObject, match=r"model\.safetensors.*'shapes-m-1'.*restore it"):
        bundle.load_network(store, version)
    with pytest.raises(CorruptObject, match=r"reference\.safetensors"):
        bundle.load_reference(store, version)
    bundle.publish(store, version, files)
    bundle.load_network(store, version)
    bundle.load_reference(store, version)


def test_files_that_the_record_does_not_name_are_not_revealed() -> None:
    config, store = config_of(), MemoryStore()
    files = files_of(trained(config), np.zeros((1, 1)))
    version = version_of(config, files)
    with pytest.raises(CorruptObject, match="not the one that its record names"):
        bundle.publish(store, version, files_of(trained(config, seed=1), np.zeros((1, 1))))
    with pytest.raises(NotFound):
        read_version(store, version.id)


def test_a_name_that_is_nearly_right_is_offered(
    published: tuple[MemoryStore, ModelVersion, dict[str, bytes]],
) -> None:
    with pytest.raises(NotFound, match="did you mean 'shapes-m-1'"):
        read_version(published[0], "shape-m-1")


def test_the_bundle_of_a_search_is_whole(tiny: History) -> None:
    for version in tiny.models:
        network = bundle.load_network(tiny.store, version)
        assert sum(p.numel() for p in network.parameters()) == version.parameters
        data = bundle.read_file(tiny.store, version, bundle.WEIGHTS_FILE)
        assert len(data) == version.size_bytes
