import random
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from autovision.records.deployments import Capture, Label
from autovision.retraining.join import join

START = datetime(2026, 1, 1, tzinfo=UTC)


def capture(number, image=None):
    return Capture(
        request_id=f"r{number}",
        deployment="solar",
        model="m1",
        received_at=START + timedelta(seconds=number),
        latency_ms=5.0,
        image=image or f"image{number}",
        label="ok",
        probabilities={"ok": 1.0},
        embedding=(0.0,),
    )


def label(number, name="ok", confidence=1.0, at=0):
    return Label(
        request_id=f"r{number}",
        label=name,
        confidence=confidence,
        received_at=START + timedelta(days=1, seconds=at),
    )


def test_labels_meet_their_captures():
    joined = join(
        [capture(2), capture(1), capture(3, image="old")],
        {"r1": label(1, "defective"), "r2": label(2), "r3": label(3), "r9": label(9), "r8": label(8)},
        known_images={"old"},
    )
    assert [(c.request_id, one.label) for c, one in joined.rows] == [("r1", "defective"), ("r2", "ok")]
    assert joined.unmatched == ("r8", "r9")
    assert (joined.already_known, joined.repeated, joined.conflicting) == (1, 0, 0)


def test_one_row_per_image_with_the_surest_then_latest_label():
    captures = [capture(i, image="same") for i in range(4)]
    labels = {
        "r0": label(0, "ok", 0.9, at=1),
        "r1": label(1, "defective", 0.9, at=2),
        "r2": label(2, "ok", 0.5, at=9),
        "r3": label(3, "defective", 0.1),
    }
    joined = join(captures, labels, known_images=set())
    assert [(c.request_id, one.label) for c, one in joined.rows] == [("r1", "defective")]
    assert (joined.repeated, joined.conflicting) == (3, 2)


def test_a_label_of_an_image_that_was_not_kept_is_counted_and_teaches_nothing():
    joined = join(
        [capture(1).with_(pixels=False), capture(2)], {"r1": label(1), "r2": label(2)}, known_images=set()
    )
    assert [c.request_id for c, _ in joined.rows] == ["r2"]
    assert (joined.without_image, joined.unmatched, joined.already_known) == (1, (), 0)


def test_unlabelled_captures_are_no_candidates():
    assert join([capture(1)], {}, known_images=set()).rows == ()


@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=25),
    st.dictionaries(st.integers(0, 25), st.tuples(st.sampled_from("ab"), st.sampled_from([0.3, 0.9]))),
    st.randoms(use_true_random=False),
)
def test_every_label_is_counted_once_in_any_order(requests, given_labels, rng: random.Random):
    captures = [capture(number, f"image{image}") for number, image in dict(requests).items()]
    labels = {f"r{number}": label(number, *value) for number, value in given_labels.items()}
    joined = join(captures, labels, known_images={"image0"})
    counted = len(joined.rows) + len(joined.unmatched) + joined.already_known + joined.repeated
    assert counted == len(labels)
    assert len({c.image for c, _ in joined.rows} | {"image0"}) == len(joined.rows) + 1
    shuffled = list(captures)
    rng.shuffle(shuffled)
    assert join(shuffled + captures, dict(reversed(labels.items())), known_images={"image0"}) == joined


def test_several_labels_of_one_image_conflict_where_any_of_them_differs():
    captures = [capture(i, image="same") for i in range(3)]
    given = {"r0": label(0, ("a", "b")), "r1": label(1, ("b", "a"), 0.9), "r2": label(2, (), 0.5)}
    joined = join(captures, given, known_images=set())
    assert [one.label for _, one in joined.rows] == [("a", "b")]
    assert (joined.repeated, joined.conflicting) == (2, 1)
