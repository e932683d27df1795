import numpy as np

from autovision.labelling.confident import suspects
from autovision.labelling.worth import most_worth, uncertainty


def test_wrong_labels_are_found_and_the_clearest_come_first() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    p = rng.dirichlet([1, 1, 1], 300) * 0.3
    p[np.arange(300), truth] += 0.7
    given = truth.copy()
    wrong = rng.choice(300, 20, replace=False)
    given[wrong] = (truth[wrong] + 1) % 3
    found = suspects(p, given)
    # Half of the images of a class are below its mean, so that about half of the errors are as clear as that.
    assert {one.row for one in found} <= set(wrong.tolist()) and len(found) >= 6
    assert all(one.column == truth[one.row] for one in found)
    assert [one.margin for one in found] == sorted((one.margin for one in found), reverse=True)


def test_a_class_of_which_nothing_is_sure_suspects_nobody() -> None:
    """The threshold is the class's own mean: of a hard class one may be less sure than of an easy one."""
    p = np.array([[0.95, 0.05]] * 20 + [[0.55, 0.45]] * 20)
    labels = np.repeat([0, 1], 20)
    assert suspects(p, labels) == []
    p[0] = [0.5, 0.5]
    assert [(one.row, one.column) for one in suspects(p, labels)] == [(0, 1)]
    p[0] = np.nan
    assert suspects(p, labels) == [] and suspects(p[:0], labels[:0]) == []


def test_of_several_labels_each_is_judged_by_itself() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (200, 3))
    p = np.clip(truth * 0.8 + 0.1 + rng.normal(0, 0.05, truth.shape), 0, 1)
    given = truth.copy()
    given[:20, 1] ^= 1
    found = suspects(p, given)
    assert len(found) >= 6 and all(one.row < 20 and one.column == 1 and one.margin > 0.5 for one in found)


def test_what_is_drawn_is_unsure_and_differs() -> None:
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(5), 40)
    embeddings = np.eye(5)[kinds] * 10 + rng.normal(0, 0.1, (200, 5))
    unsure = np.tile(np.arange(40) < 8, 5)
    one = np.where(unsure, rng.uniform(0.45, 0.55, 200), rng.uniform(0.97, 0.99, 200))
    p = np.stack([one, 1 - one], 1)
    chosen = most_worth(p, embeddings, 5, multi_label=False, seed=0)
    assert unsure[chosen].all() and len({kinds[i] for i in chosen}) >= 4
    assert chosen == most_worth(p, embeddings, 5, multi_label=False, seed=0)
    assert len(most_worth(p, embeddings, 500, multi_label=False, seed=0)) == 200
    assert most_worth(p[:0], embeddings[:0], 3, multi_label=True, seed=0) == []
    assert np.allclose(uncertainty(np.array([[0.9, 0.5], [1.0, 0.0]]), multi_label=True), [1, 0])
