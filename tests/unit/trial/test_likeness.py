from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from autovision.dataset import manifest
from autovision.space.config import TrialConfig
from autovision.store import keys
from autovision.trial import likeness
from autovision.trial.likeness import FEWEST, Likeness, alike_by_embedding

if TYPE_CHECKING:
    from tests.unit.conftest import History


def embedded(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Of one domain: they all point nearly the same way."""
    rng = np.random.default_rng(seed)
    return {
        f"{seed}-{i:04d}": row
        for i, row in enumerate(5 + rng.normal(size=(n, 200)) * np.linspace(2, 0.1, 200))
    }


def test_near_duplicates_are_found_where_everything_points_the_same_way() -> None:
    old, rng = embedded(FEWEST), np.random.default_rng(1)
    new = {f"n{i}": old[f"0-{i:04d}"] + rng.normal(size=200) * 0.03 for i in range(5)} | embedded(20, seed=2)
    new["n9"] = new["n0"] + rng.normal(size=200) * 0.03
    found = alike_by_embedding(new, old, "resnet")
    pairs = {frozenset((pair.first, pair.second)) for pair in found}
    expected = {frozenset((f"n{i}", f"0-{i:04d}")) for i in range(5)}
    assert pairs == expected | {frozenset(("n0", "n9")), frozenset(("n9", "0-0000"))}
    assert "resnet sees a likeness of 0.9" in found[0].how or "of 1.00" in found[0].how
    few = dict(list(old.items())[: FEWEST - 30])
    assert alike_by_embedding(new, few, "resnet") == []


def test_where_all_look_alike_only_the_closest_are_near_duplicates() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(130, 200)) * 10
    rows = {f"{i:04d}": kinds[i % 2 if i < 300 else i % 130] + rng.normal(size=200) for i in range(700)}
    rows["twin"] = rows["0000"] + rng.normal(size=200) * 1e-4
    found = alike_by_embedding(rows, {}, "resnet")
    assert {frozenset(("0000", "twin"))} <= {frozenset((pair.first, pair.second)) for pair in found}
    assert len(found) < 1000


def test_images_are_compared_by_stored_features(tiny: History, monkeypatch: pytest.MonkeyPatch) -> None:
    store, config = tiny.copy(), TrialConfig.model_validate(tiny.models[0].lineage.config)
    rows = manifest.read(store, tiny.versions[0])
    old = [row.image for row in rows]

    def copied(digest: str) -> str:
        decoded = Image.open(io.BytesIO(store.get(keys.image(digest)).data))
        buffer = io.BytesIO()
        decoded.save(buffer, "BMP")
        name = hashlib.sha256(buffer.getvalue()).hexdigest()
        store.put_immutable(keys.image(name), buffer.getvalue())
        return name

    copies = {copied(digest): digest for digest in old[:6]}
    assert Likeness(store, config)(list(copies), old) == [], "too few tell nothing"
    monkeypatch.setattr(likeness, "FEWEST", 60)
    monkeypatch.setattr(likeness, "COMPONENTS", 16)
    found = Likeness(store, config, compute_old=True)(list(copies), old)
    assert {frozenset(pair) for pair in copies.items()} <= {frozenset((p.first, p.second)) for p in found}
    assert Likeness(store, config.with_(weights="store:gone"))(list(copies), old) == []
