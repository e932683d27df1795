from __future__ import annotations

import os
import signal

import pytest

from autovision.cli.signals import StopFlag


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_insists(number: int) -> None:
    told: list[str] = []
    with StopFlag(lambda: told.append("stopping")) as stopping:
        assert not stopping() and told == []
        os.kill(os.getpid(), number)
        assert told == []
        assert stopping() and stopping()
        assert told == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopFlag():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_that_another_library_set_meanwhile_is_replaced_on_request() -> None:
    with StopFlag() as stopping:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as `ray.init` takes the signal for itself
        stopping.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping()
