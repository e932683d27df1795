import random
import weakref
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


def test_requests_with_an_embedding_of_what_is_no_number_do_not_count(capture):
    captures = [capture(i) for i in range(5)] + [capture(5, embedding=(0.0, float("nan")))]
    assert latest_window(captures, 6, "m1") is None


def test_a_server_whose_clock_is_ahead_does_not_end_a_window_in_the_future(capture):
    captures = [capture(i) for i in range(5)] + [capture(86_400)]
    at = captures[4].received_at
    assert latest_window(captures, 6, "m1", until=at) is None
    window = latest_window(captures, 5, "m1", until=at)
    assert window[-1].received_at == at
    captures += [capture(i) for i in range(5, 10)]
    later = latest_window(captures, 5, "m1", after=window[-1].received_at, until=at + timedelta(minutes=1))
    assert [each.request_id for each in later] == [f"r{i:04d}" for i in range(5, 10)]
    assert len(latest_window(captures, 6, "m1", after=at, until=at + timedelta(days=2))) == 6


def test_what_came_while_nobody_looked_does_not_fill_the_memory(capture):
    seen = []
    most = 0

    def coming():
        nonlocal most
        for i in random.Random(0).sample(range(1000), 1000):
            each = capture(i)
            seen.append(weakref.ref(each))
            yield each
            if i % 10 == 0:
                most = max(most, sum(ref() is not None for ref in seen))

    window = latest_window(coming(), 20, "m1")
    assert [each.request_id for each in window] == [f"r{i:04d}" for i in range(980, 1000)]
    assert most < 50


def test_a_window_of_one_is_refused(capture):
    with pytest.raises(InvalidInput, match="window of 1 requests"):
        latest_window([capture(0)], 1, "m1")
