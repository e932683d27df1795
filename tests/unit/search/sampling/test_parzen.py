"""The estimator: densities that are densities, and proposals where the good points are."""

from __future__ import annotations

import numpy as np
import pytest

from autovision.search.sampling.coordinates import Coordinates
from autovision.search.sampling.parzen import Density, Parzen
from autovision.space import Choice, Float, Integer, Space


class Mixed(Space):
    """Every kind of parameter, with conditions on two levels."""

    backbone = Choice("resnet18", "resnet34", "resnet50")
    unfreeze = Integer(0, 2)
    backbone_lr_ratio = Float(0.01, 1.0, log=True, when={"unfreeze": (1, 2)})
    layer_decay = Float(0.4, 1.0, when={"unfreeze": 2})
    head_width = Integer(16, 4096, log=True)
    epochs = Integer(1, 12, log=True)
    dropout = Float(0.0, 0.8, step=0.1)
    lr = Float(1e-4, 1e-1, log=True)


@pytest.fixture
def coordinates() -> Coordinates:
    return Coordinates(Mixed())


def drawn(n: int, seed: int = 0) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    return [Mixed.sample(rng) for _ in range(n)]


def test_points_come_back_from_their_rows(coordinates: Coordinates) -> None:
    for point in drawn(200):
        back = coordinates.decode(coordinates.encode(point))
        assert back.keys() == point.keys()
        for name, value in point.items():
            assert back[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_what_does_not_exist_is_hidden(coordinates: Coordinates) -> None:
    rows = np.vstack([coordinates.encode(Mixed.default())] * 3)
    rows[:, coordinates.index["unfreeze"]] = [0, 1, 2]
    rows[:, [coordinates.index["backbone_lr_ratio"], coordinates.index["layer_decay"]]] = 0.5
    for unfreeze, row in enumerate(coordinates.hide_inactive(rows)):
        point = coordinates.decode(row)
        assert point["unfreeze"] == unfreeze
        assert Mixed.contains(point)


def test_a_density_adds_up_to_one(coordinates: Coordinates) -> None:
    """Its mean over points of the flat density is 1, as it is relative to that one."""
    kernels = np.vstack([coordinates.encode(point) for point in drawn(5)])
    flat = Density(coordinates, np.empty((0, len(coordinates))))
    rows = coordinates.hide_inactive(
        flat.draw(np.random.default_rng(1), 60_000, np.full(len(coordinates), np.nan))
    )
    assert np.exp(Density(coordinates, kernels).log(rows)).mean() == pytest.approx(1.0, abs=0.15)
    assert flat.log(rows) == pytest.approx(0.0)


def test_draws_follow_the_density(coordinates: Coordinates) -> None:
    """The mean of 1 / density over its own draws is 1, wherever it is above 0."""
    kernels = np.vstack([coordinates.encode(point) for point in drawn(6, seed=2)])
    density = Density(coordinates, kernels)
    rows = density.draw(np.random.default_rng(3), 60_000, np.full(len(coordinates), np.nan))
    rows = coordinates.hide_inactive(rows)
    assert np.exp(-density.log(rows)).mean() == pytest.approx(1.0, abs=0.1)


def test_the_flat_density_is_the_prior(coordinates: Coordinates) -> None:
    flat = Density(coordinates, np.empty((0, len(coordinates))))
    rows = flat.draw(np.random.default_rng(4), 20_000, np.full(len(coordinates), np.nan))
    ours = [coordinates.decode(row) for row in coordinates.hide_inactive(rows)]
    theirs = drawn(20_000, seed=5)
    for name in ("unfreeze", "epochs", "dropout", "head_width", "lr"):
        assert np.mean([point[name] for point in ours]) == pytest.approx(
            np.mean([point[name] for point in theirs]), rel=0.03
        )


def test_proposals_are_near_the_good_points_and_keep_what_is_given(coordinates: Coordinates) -> None:
    points = drawn(120, seed=6)
    rows = np.vstack([coordinates.encode(point) for point in points])
    lr, backbone = rows[:, coordinates.index["lr"]], coordinates.index["backbone"]
    good = np.abs(lr - 0.7) < 0.1
    fit = Parzen(coordinates, rows[good], rows[~good])
    given = coordinates.encode({"backbone": "resnet50"})
    proposals = np.vstack([fit.propose(np.random.default_rng(i), given) for i in range(40)])
    assert (proposals[:, backbone] == 2).all()
    assert np.median(np.abs(proposals[:, coordinates.index["lr"]] - 0.7)) < 0.1


def test_what_is_given_is_conditioned_on(coordinates: Coordinates) -> None:
    """With resnet18 low rates are good, with resnet50 high ones: each is proposed its own."""
    rng = np.random.default_rng(7)
    points = [{**point, "backbone": ("resnet18", "resnet50")[i % 2]} for i, point in enumerate(drawn(40, 8))]
    good = np.vstack([coordinates.encode(point) for point in points])
    good[:, coordinates.index["lr"]] = np.where(np.arange(40) % 2, 0.85, 0.15) + 0.03 * rng.standard_normal(
        40
    )
    rest = np.vstack([coordinates.encode(point) for point in drawn(60, 9)])
    fit = Parzen(coordinates, good, rest)
    for backbone, expected in (("resnet18", 0.15), ("resnet50", 0.85)):
        given = coordinates.encode({"backbone": backbone})
        rates = [fit.propose(np.random.default_rng(i), given)[coordinates.index["lr"]] for i in range(30)]
        assert abs(float(np.median(rates)) - expected) < 0.15


def test_pending_points_are_kept_away_from(coordinates: Coordinates) -> None:
    rows = np.vstack([coordinates.encode(point) for point in drawn(60, seed=10)])
    fit = Parzen(coordinates, rows[:6], rows[6:])
    nothing = np.full(len(coordinates), np.nan)
    pending: list[np.ndarray] = []
    for i in range(60):
        pending.append(fit.propose(np.random.default_rng(i), nothing, pending))
    alone = [fit.propose(np.random.default_rng(i), nothing) for i in range(60)]
    lr = coordinates.index["lr"]
    assert np.std([row[lr] for row in pending]) > np.std([row[lr] for row in alone])
