"""Who may compute, and in which order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from autovision.serving.turns import Turns


class Crew:
    """Threads that ask for turns, and the order in which they get them."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.order: list[str] = []
        self.at_once = 0
        self.most_at_once = 0
        self._threads: list[threading.Thread] = []

    def asks(self, name: str, *, yields: bool = False, places: int | None = None) -> None:
        """Begins to ask, and is waiting in line when this returns."""

        before = len(self.turns._line)
        thread = threading.Thread(target=self._work, args=(name, yields, places))
        self._threads.append(thread)
        thread.start()
        if yields:
            time.sleep(0.02)
        else:
            until(lambda: len(self.turns._line) > before)

    def _work(self, name: str, yields: bool, places: int | None) -> None:
        with self.turns.mine(yields=yields, places=places):
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.order.append(name)
            time.sleep(0.005)
            self.at_once -= 1

    def asks_and_joins(self, name: str, places: int | None = None) -> None:
        self._threads.append(threading.Thread(target=self._work, args=(name, False, places)))
        self._threads[-1].start()
        self.join()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_one_computes_at_a_time_in_the_order_of_asking() -> None:
    crew = Crew(Turns(longest_s=1000))
    with crew.turns.mine():
        for name in "abcdef":
            crew.asks(name)
    crew.join()
    assert crew.order == list("abcdef")
    assert crew.most_at_once == 1


def test_whoever_yields_comes_after_all_that_wait() -> None:
    crew = Crew(Turns(patience_s=1000, longest_s=1000))
    with crew.turns.mine():
        crew.asks("later", yields=True)
        for name in "abc":
            crew.asks(name)
    crew.join()
    assert crew.order == ["a", "b", "c", "later"]


def test_whoever_yields_has_a_turn_at_once_where_nobody_waits() -> None:
    turns = Turns(patience_s=1000, longest_s=1000)
    with turns.mine(yields=True):
        pass
    with turns.mine(yields=True):
        pass


def test_whoever_has_yielded_for_long_is_in_line_with_the_others() -> None:
    now = [0.0]
    crew = Crew(Turns(patience_s=1.0, longest_s=1000, clock=lambda: now[0]))
    with crew.turns.mine():
        crew.asks("patient", yields=True)
        crew.asks("a")
        now[0] = 2.0
        until(lambda: len(crew.turns._line) == 2)
        crew.asks("b")
    crew.join()
    assert crew.order == ["a", "patient", "b"]


def test_a_turn_ends_when_what_is_computed_fails() -> None:
    turns = Turns()
    try:
        with turns.mine():
            raise RuntimeError
    except RuntimeError:
        pass
    with turns.mine():
        pass


def test_one_that_hangs_holds_the_others_up_for_a_while_only() -> None:
    crew = Crew(Turns(longest_s=0.1))
    over = threading.Event()

    def hang() -> None:
        with crew.turns.mine():
            over.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    until(lambda: crew.turns._held)
    for name in "ab":
        crew.asks(name)
    crew.join()
    over.set()
    thread.join(10)
    assert crew.order == ["a", "b"]
    with crew.turns.mine():
        pass


def test_a_slow_one_that_yields_holds_the_others_up_for_less() -> None:
    now = [0.0]
    turns = Turns(longest_s=1000, yields_after_s=0.1, clock=lambda: now[0])
    crew = Crew(turns)
    with turns.mine(yields=True):
        now[0] = 0.2
        crew.asks_and_joins("caller")
    assert crew.order == ["caller"]


def test_as_many_compute_at_once_as_there_are_places() -> None:
    turns, together = Turns(2, longest_s=1000), threading.Barrier(2)

    def meet() -> None:
        with turns.mine(places=1):
            together.wait(10)

    threads = [threading.Thread(target=meet) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not together.broken


def test_a_place_goes_to_whoever_asked_first() -> None:
    turns = Turns(2, longest_s=1000)
    crew = Crew(turns)
    with turns.mine(places=1):
        with turns.mine(places=1) as second:
            assert not second.widen()
            for name in "abc":
                crew.asks(name, places=1)
            assert crew.order == []
        crew.join()
    assert crew.order == list("abc")
    assert crew.most_at_once == 1


def test_nobody_overtakes_one_that_waits_for_all_places() -> None:
    turns = Turns(2, longest_s=1000)
    crew = Crew(turns)
    with turns.mine(places=1):
        crew.asks("all")
        crew.asks("small", places=1)
        assert crew.order == []
    crew.join()
    assert crew.order == ["all", "small"]


def test_whoever_yields_begins_while_nobody_computes_and_holds_one_place_only() -> None:
    turns = Turns(2, patience_s=1000, longest_s=1000, yields_after_s=1000)
    crew = Crew(turns)
    with turns.mine(places=1):
        crew.asks("later", yields=True, places=1)
        assert crew.order == []
    crew.join()
    with turns.mine(yields=True, places=1), turns.mine(places=1):
        crew.asks("caller", places=1)
        assert crew.order == ["later"]
    crew.join()
    assert crew.order == ["later", "caller"]


def test_one_that_is_alone_may_use_all_threads() -> None:
    now = [0.0]
    turns = Turns(2, longest_s=1.0, clock=lambda: now[0])
    with turns.mine(places=1) as first:
        assert first.widen() and first.wide
        with turns.mine(places=1) as second:
            assert not second.widen()
            assert not second.wide
            now[0] = 2.0
            with turns.mine(places=1) as third:
                assert third.widen(), "those that hang hold nobody up"


def test_one_that_hangs_in_a_lane_holds_nobody_up() -> None:
    now = [0.0]
    turns = Turns(2, longest_s=1.0, clock=lambda: now[0])
    crew = Crew(turns)
    with turns.mine(places=1):
        for name in "abc":
            crew.asks_and_joins(name, places=1)
        now[0] = 2.0
        crew.asks_and_joins("all")
    assert crew.order == ["a", "b", "c", "all"]
