"""Weights of the user: into the store, out of it, and onto a backbone."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load, save_file
from torch import Tensor

from autovision.errors import (
    Conflict,
    CorruptObject,
    InvalidInput,
    InvalidWeights,
    NotFound,
    UnknownBackbone,
    UnsupportedBackbone,
)
from autovision.model import backbone as backbones
from autovision.model import weight_catalog
from autovision.model.weight_import import import_weights
from autovision.records.models import ImportedWeights
from autovision.space.config import TrialConfig
from autovision.store import LocalStore, MemoryStore, Store, keys

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def weights_of(backbone: str, seed: int = 3) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {name: t.contiguous() for name, t in timm.create_model(backbone).state_dict().items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of test_resnet."""
    save_file(weights_of("test_resnet"), tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


def brought(store: Store, file: Path, name: str = "mine", **options: str) -> ImportedWeights:
    return import_weights(store, file, name, **{"backbone": "test_resnet", **options})


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_what_was_imported_comes_back_equal(
    backbone: str, suffix: str, store: LocalStore, tmp_path: Path
) -> None:
    tensors, path = weights_of(backbone), tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{name}": t for name, t in tensors.items()}}, path)
    else:
        save_file(tensors, path)
    record = brought(store, path, backbone=backbone)
    assert (record.name, record.backbone, record.license) == ("mine", backbone, "unknown")
    assert record.source == f"file weights{suffix}"

    loaded = backbones.load(TrialConfig(backbone=backbone, weights="store:mine"), store)
    original = timm.create_model(backbone)
    original.load_state_dict(tensors)
    expected = backbones.structure_of(original, TrialConfig(backbone=backbone)).state_dict()
    found = loaded.staged.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert loaded.info.source == f"store:mine, file weights{suffix}"


def test_one_file_is_stored_under_its_digest(store: LocalStore, file: Path, tmp_path: Path) -> None:
    record = import_weights(
        store, file, "mine", backbone="test_resnet", license="MIT", source="lab 3", clock=lambda: NOON
    )
    (key,) = [key for key in store.list("weights/") if key.endswith(".safetensors")]
    data = store.get(key).data
    assert key == keys.weights_file(hashlib.sha256(data).hexdigest())
    assert record == ImportedWeights(
        name="mine",
        backbone="test_resnet",
        digest=hashlib.sha256(data).hexdigest(),
        license="MIT",
        source="lab 3",
        size_bytes=len(data),
        created_at=NOON,
    )
    assert load(data).keys() == weights_of("test_resnet").keys()
    torch.save(weights_of("test_resnet"), tmp_path / "same.pth")
    assert brought(store, tmp_path / "same.pth", "other").digest == record.digest, "another form of the same"
    assert len(list(store.list("weights/files/"))) == 1


def test_the_same_again_changes_nothing(store: LocalStore, file: Path) -> None:
    first = brought(store, file, license="MIT")
    before = {key: store.get(key) for key in store.list()}
    assert brought(store, file) == brought(store, file, license="MIT") == first
    assert {key: store.get(key) for key in store.list()} == before


def test_a_name_is_given_once(store: LocalStore, file: Path) -> None:
    first = brought(store, file, license="MIT")
    save_file(weights_of("test_resnet", seed=4), file)
    with pytest.raises(Conflict, match=r"the name 'mine' already \(with digest .*--name mine-2"):
        brought(store, file)
    save_file(weights_of("test_resnet"), file)
    with pytest.raises(Conflict, match=r"\(with license MIT\)"):
        brought(store, file, license="Apache-2.0")
    assert weight_catalog.list_all(store) == [first]


def test_a_damaged_file_in_the_store_is_noticed_and_can_be_imported_again(
    store: LocalStore, file: Path
) -> None:
    record, config = brought(store, file), TrialConfig(backbone="test_resnet", weights="store:mine")
    path = store.local_path(keys.weights_file(record.digest))
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(
        CorruptObject, match=r"weights 'mine' .* do not match their digest; import their file"
    ):
        backbones.load(config, store)
    brought(store, file)
    assert path.read_bytes() == good
    store.delete(keys.weights_file(record.digest))
    with pytest.raises(CorruptObject, match=r"the file of weights 'mine' is gone"):
        backbones.load(config, store)
    brought(store, file)
    assert backbones.load(config, store).info.license == "unknown"


def test_weights_belong_to_one_backbone(store: LocalStore, file: Path) -> None:
    brought(store, file)
    with pytest.raises(
        InvalidWeights, match=r"'mine' were imported for backbone 'test_resnet', not 'test_vit'"
    ):
        backbones.load(TrialConfig(backbone="test_vit", weights="store:mine"), store)
    tagged = TrialConfig(backbone="test_resnet.r160_in1k", weights="store:mine")
    assert backbones.load(tagged, store).info.source == "store:mine, file mine.safetensors"


def test_a_name_that_does_not_exist_is_met_with_the_near_ones(store: LocalStore, file: Path) -> None:
    config = TrialConfig(backbone="test_resnet", weights="store:mind")
    with pytest.raises(NotFound, match=r"no weights 'mind' in .*`autovision weights import`"):
        backbones.load(config, store)
    brought(store, file)
    with pytest.raises(NotFound, match="did you mean 'mine'"):
        backbones.load(config, store)
    with pytest.raises(InvalidInput, match="'store:mind' are in a store, and none was given"):
        backbones.load(config)


def test_nothing_is_stored_of_what_is_refused(store: LocalStore, file: Path) -> None:
    tensors = weights_of("test_resnet")
    with pytest.raises(InvalidWeights, match=r"mine\.safetensors hold .* backbone has"):
        brought(store, file, backbone="test_vit")
    with pytest.raises(UnknownBackbone, match="did you mean 'test_resnet'"):
        brought(store, file, backbone="test_resnets")
    with pytest.raises(InvalidInput, match="'a/b' is not a valid name"):
        brought(store, file, "a/b")
    with pytest.raises(InvalidInput, match="'my own' is not the name of a licence"):
        brought(store, file, license="my own")
    tensors["layer1.0.conv1.weight"][0, 0] = torch.nan
    save_file(tensors, file)
    with pytest.raises(InvalidWeights, match=r"'layer1\.0\.conv1\.weight' holds values that are not finite"):
        brought(store, file)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptObject):
        brought(store, file)
    assert list(store.list()) == []


def test_imports_into_memory(file: Path) -> None:
    store = MemoryStore()
    brought(store, file)
    config = TrialConfig(backbone="test_resnet", weights="store:mine")
    assert backbones.load(config, store).info == backbones.load(config, store).info


def test_weights_that_no_trial_could_use_are_refused(store: LocalStore, tmp_path: Path) -> None:
    save_file(weights_of("crossvit_tiny_240"), tmp_path / "other.safetensors")
    with pytest.raises(UnsupportedBackbone):
        brought(store, tmp_path / "other.safetensors", backbone="crossvit_tiny_240")
