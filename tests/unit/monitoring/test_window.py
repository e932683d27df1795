import random
from datetime import timedelta

import pytest

from autovision.errors import InvalidInput
from autovision.monitoring.window import latest_window


def test_the_last_requests_of_the_model_in_order(capture):
    captures = [capture(i) for i in range(10)] + [capture(i, model="m2") for i in range(10, 15)]
    random.Random(0).shuffle(captures)
    window = latest_window(captures, 4, "m1")
    assert [c.request_id for c in window] == ["r0006", "r0007", "r0008", "r0009"]
    assert len(latest_window(captures, 5, "m2")) == 5


def test_none_when_there_are_too_few(capture):
    captures = [capture(i) for i in range(9)]
    assert latest_window(captures, 10, "m1") is None
    assert latest_window(captures, 9, "m1") is not None
    assert latest_window([], 2, "m1") is None


def test_windows_do_not_overlap(capture):
    captures = [capture(i) for i in range(10)]
    first = latest_window(captures[:6], 5, "m1")
    assert latest_window(captures, 5, "m1", after=first[-1].received_at) is None
    captures.append(capture(10))
    second = latest_window(captures, 5, "m1", after=first[-1].received_at)
    assert not {c.request_id for c in first} & {c.request_id for c in second}
    assert latest_window(captures, 2, "m1", after=captures[-1].received_at + timedelta(seconds=1)) is None


def test_what_was_captured_twice_counts_once(capture):
    captures = [capture(i) for i in range(5)] * 2
    assert latest_window(captures, 6, "m1") is None
    assert len(latest_window(captures, 5, "m1")) == 5


def test_requests_without_an_embedding_do_not_count(capture):
    captures = [capture(i) for i in range(5)] + [capture(5, embedding=())]
    assert latest_window(captures, 6, "m1") is None


def test_a_window_of_one_is_refused(capture):
    with pytest.raises(InvalidInput, match="window of 1 requests"):
        latest_window([capture(0)], 1, "m1")
