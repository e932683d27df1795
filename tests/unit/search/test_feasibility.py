"""Which backbones of a space can be used, and may be."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from autovision.errors import InvalidInput, WeightsUnavailable
from autovision.model.weight_import import import_weights
from autovision.search.feasibility import infeasible_backbones, unlicensed_backbones
from autovision.space import Choice, Space
from autovision.store import MemoryStore
from autovision.trial.workbench import Workbench


class Published(Space):
    """Weights under Apache-2.0, MIT and CC-BY-NC-4.0, of which only the first ones are on this machine."""

    backbone = Choice("tf_efficientnet_lite0", "regnety_002", "convnextv2_atto")
    resolution = 64


class Mine(Space):
    backbone = Choice("test_resnet", "test_vit")
    weights = "store:mine"


class Mixed(Space):
    backbone = "test_resnet"
    weights = Choice("random", "store:mine")


@pytest.fixture
def store(tmp_path: Path) -> MemoryStore:
    """Weights of test_resnet are in it, under the name `mine` and CC0-1.0."""
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "mine.safetensors")
    store = MemoryStore()
    import_weights(
        store, tmp_path / "mine.safetensors", "mine", backbone="test_resnet", license="CC0-1.0", source="lab"
    )
    return store


@pytest.fixture
def bench(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return Workbench(store, threads=1)


def test_every_backbone_is_free_to_use_if_no_licence_is_asked_for(store: MemoryStore) -> None:
    assert unlicensed_backbones(store, Published(), ()) == {}


def test_other_licences_are_left_out_and_named(store: MemoryStore) -> None:
    assert unlicensed_backbones(store, Published(), ("apache-2.0", "mit")) == {
        "convnextv2_atto": "the licence of its weights (timm hub timm/convnextv2_atto.fcmae_ft_in1k) is "
        "cc-by-nc-4.0, not apache-2.0 or mit"
    }


def test_an_unknown_licence_is_left_out(
    store: MemoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "regnety_002.pth").touch()
    monkeypatch.setenv("AUTOVISION_WEIGHTS", str(tmp_path))
    left_out = unlicensed_backbones(store, Published(), ("apache-2.0", "mit"))
    assert left_out["regnety_002"].endswith("(file regnety_002.pth) is unknown, not apache-2.0 or mit")


def test_a_space_of_which_nothing_may_be_used_is_refused_with_what_there_is(store: MemoryStore) -> None:
    with pytest.raises(
        InvalidInput, match=r"lite0: .*Apache-2\.0, not gpl-3\.0; regnety.* mit,.*--license SPDX"
    ):
        unlicensed_backbones(store, Published(), ("gpl-3.0",))


def test_imported_weights_have_the_licence_that_they_were_given(store: MemoryStore) -> None:
    assert unlicensed_backbones(store, Mixed(), ("cc0-1.0",)) == {}
    with pytest.raises(InvalidInput, match=r"\(store:mine, lab\) is CC0-1\.0, not mit"):
        unlicensed_backbones(store, Mixed(), ("mit",))


def test_what_may_not_be_used_is_not_loaded_either(bench: Workbench) -> None:
    """Without a licence asked for, it is the missing files that leave two backbones out."""
    reasons = infeasible_backbones(Published(), bench, ("apache-2.0",))
    assert {name: "licence" in reason for name, reason in reasons.items()} == {
        "regnety_002": True,
        "convnextv2_atto": True,
    }
    reasons = infeasible_backbones(Published(), bench)
    assert {name: "timm's hub" in reason for name, reason in reasons.items()} == {
        "regnety_002": True,
        "convnextv2_atto": True,
    }


def test_if_what_is_allowed_cannot_be_had_there_is_an_error(bench: Workbench) -> None:
    with pytest.raises(WeightsUnavailable, match="regnety_002"):
        infeasible_backbones(Published(), bench, ("mit",))


def test_weights_of_another_backbone_leave_it_out(bench: Workbench) -> None:
    reasons = infeasible_backbones(Mine(), bench, ("cc0-1.0",))
    assert list(reasons) == ["test_vit"]
    assert "were imported for backbone 'test_resnet'" in reasons["test_vit"]
