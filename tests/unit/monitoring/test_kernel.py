"""The kernel test of embeddings: its rate of false alarms, its power, and what it refuses."""

import numpy as np
import pytest

from autovision.errors import InvalidInput
from autovision.monitoring.detectors import kernel, projection

MOSTLY_SAME = np.ones((100, 4))
MOSTLY_SAME[:20] = np.random.default_rng(0).normal(size=(20, 4))


def outcome_of(reference, window, *, alpha=0.05, seed=0):
    fitted, compared = projection.split(reference)
    project = projection.fit(np.asarray(reference)[fitted])
    normal = project(np.asarray(reference)[compared], name="reference")
    rng = np.random.default_rng(seed)
    return kernel.kernel_test(normal, project(window), gamma=project.gamma, alpha=alpha, rng=rng)


def p_values(draw, tests, *, shift=0.0, n=120, m=30):
    rng = np.random.default_rng(7)
    found = [outcome_of(draw(n, rng), draw(m, rng, shift), seed=seed).p_value for seed in range(tests)]
    return np.array(found)


def test_false_alarms_come_at_the_stated_rate(embeddings):
    """300 windows without drift. The bounds are 3.3 standard errors around 0.05 and 0.2."""
    found = p_values(embeddings, 300)
    assert 0.008 <= np.mean(found <= 0.05) <= 0.092
    assert 0.124 <= np.mean(found <= 0.2) <= 0.276


def test_more_dimensions_than_rows_do_not_raise_the_rate():
    """Where a projection that saw the compared rows would alarm nearly always."""

    def draw(n, rng, shift=0.0):
        return rng.normal(size=(n, 200)) / np.sqrt(np.arange(1, 201))

    assert np.mean(p_values(draw, 60) <= 0.05) <= 0.15  # 3 expected; above 9 with a probability under 0.1 %


def test_power_grows_with_the_shift(embeddings):
    power = [np.mean(p_values(embeddings, 40, shift=shift) <= 0.05) for shift in (0.0, 0.5, 1.5)]
    assert power[0] < power[1] <= power[2] == 1


def test_drift_off_the_plane_of_the_reference_is_found():
    """The reference lies in 40 dimensions and the window leaves it along a direction that was silent."""
    rng = np.random.default_rng(0)
    reference = np.column_stack([rng.normal(size=(300, 5)) * 10, rng.normal(size=(300, 35)), np.zeros(300)])
    window = reference[rng.integers(0, 300, 50)] + 0.0
    window[:, -1] = 12.0
    assert outcome_of(reference, window, alpha=0.001).alarm


def test_units_of_the_embedding_do_not_matter(embeddings):
    rng = np.random.default_rng(1)
    reference, window = embeddings(100, rng), embeddings(20, rng, 0.5)
    plain, scaled = outcome_of(reference, window), outcome_of(reference * 1e-6, window * 1e-6)
    assert scaled.score == pytest.approx(plain.score)


def test_same_input_gives_same_result(embeddings):
    rng = np.random.default_rng(1)
    reference, window = embeddings(100, rng), embeddings(20, rng)
    first, again, other = (outcome_of(reference, window, seed=seed) for seed in (3, 3, 4))
    assert (first.score, first.p_value) == (again.score, again.p_value)
    assert (first.null[:50] == again.null[:50]).all() and not (first.null[:50] == other.null[:50]).all()


def test_constant_window_is_drift(embeddings):
    rng = np.random.default_rng(1)
    assert outcome_of(embeddings(200, rng), np.ones((20, 60)), alpha=0.01).alarm


def test_a_projection_is_read_back_as_it_was(embeddings):
    rng = np.random.default_rng(1)
    made = projection.fit(embeddings(100, rng))
    window = embeddings(20, rng)
    read = projection.Projection.from_bytes(made.to_bytes())
    assert (read(window) == made(window)).all() and read.gamma == made.gamma


def test_the_witness_points_at_the_images_that_are_unlike(embeddings):
    rng = np.random.default_rng(2)
    project = projection.fit(embeddings(150, rng))
    normal = project(embeddings(150, rng))
    window = project(np.concatenate([embeddings(40, rng), embeddings(10, rng, 3.0)]))
    found = kernel.witness(normal, window, project.gamma)
    assert len(set(np.argsort(found.window)[:10]) & set(range(40, 50))) >= 9
    assert found.unlikeness[40:].min() > 0.95 > found.unlikeness[:40].mean()
    assert found.normal_unlikeness.mean() == pytest.approx(0.5, abs=0.01)


def test_typical_rows_are_in_the_midst_and_differ():
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(50, 2)), rng.normal(size=(50, 2)) + 8, [[30.0, 30.0]]])
    chosen = kernel.typical(rows, 0.5, 6)
    assert len(set(chosen)) == 6 and 100 not in chosen
    assert {index < 50 for index in chosen} == {True, False}, "of both groups"
    assert len(kernel.typical(rows[:3], 0.5, 6)) == 3


@pytest.mark.parametrize(
    ("reference", "window", "message"),
    [
        (np.ones((100, 4)), np.ones((10, 4)), "are the same"),
        (MOSTLY_SAME, np.ones((10, 4)), "most embeddings of the reference are the same"),
        (np.random.default_rng(0).normal(size=(100, 4)), np.ones((1, 4)), "the window has 1 rows"),
        (np.ones((5, 4)), np.ones((10, 4)), "the reference has 5 rows"),
        (
            np.random.default_rng(0).normal(size=(100, 4)),
            np.ones((10, 3)),
            "have 4 numbers and the window's 3",
        ),
        (
            np.random.default_rng(0).normal(size=(100, 4)),
            np.full((10, 4), np.nan),
            "10 of the window's 10 embeddings are not finite",
        ),
        (np.random.default_rng(0).normal(size=(100, 4)), [[1.0], [1.0, 2.0]], "do not have the same length"),
        (np.ones(100), np.ones((10, 4)), "shape"),
    ],
)
def test_degenerate_input_is_refused(reference, window, message):
    with pytest.raises(InvalidInput, match=message):
        outcome_of(reference, window)
