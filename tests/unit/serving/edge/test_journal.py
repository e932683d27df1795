"""What HAProxy's log tells of answers that no replica gave."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autovision.serving.edge.journal import Journal, kind_of
from tests.unit.serving.worlds import until

KINDS = {408: "slow-body", 503: "no-replica"}


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("408 cR", "slow-body"),
        ("503 SC\n", "no-replica"),
        ("503 --", None),
        ("503 CC", None),
        ("200 SD", None),
        ("503", None),
        ("", None),
        ("\x00\x01 \xff", None),
    ],
)
def test_lines_tell_whose_answer_it_was(line: str, kind: str | None) -> None:
    assert kind_of(line, KINDS) == kind


def test_it_reads_until_it_is_closed(place: Path) -> None:
    told: list[str] = []
    path = place / "log.sock"
    path.touch()  # one that was killed has left it behind
    journal = Journal(path, KINDS, told.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        for line in (b"408 cR", b"", b"503 --", b"503 sQ"):
            log.sendto(line, str(path))
        until(lambda: len(told) == 2)
    assert journal.alive
    journal.close()
    assert not (journal.alive or path.exists())
    assert told == ["slow-body", "no-replica"]
