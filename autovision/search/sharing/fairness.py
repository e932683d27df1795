"""Who comes next among people that wait: whoever has had the least of late. Pure functions.

A fair share scheduler (Kay and Lauder 1988): what somebody has used counts for half after a day, so that nobody pays
for a busy week for long, and nobody saves up for one. Who waits is ordered by what his user will have had before it,
which is what giving each free place to the user with the least so far comes to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

HALF_LIFE = timedelta(hours=24)
FORGOTTEN = 10 * HALF_LIFE
"""after which a thousandth is left, and nothing is counted"""

User = str | None
"""a token's name; None: whoever works on the store itself"""


class Use(NamedTuple):
    """What a search took, or was promised.

    Attributes:
        seconds: wall seconds.
        until: when it ended; None: it has not.
    """

    user: User
    seconds: float
    until: datetime | None


class Wish(NamedTuple):
    """A search that waits.

    Attributes:
        rank: sorts the searches of one user.
        seconds: wall seconds that it may take.
    """

    search: str
    user: User
    rank: tuple[int, datetime, str]
    seconds: float


def had(uses: Iterable[Use], at: datetime) -> dict[User, float]:
    """User -> seconds, each worth half a day later."""
    found: dict[User, float] = defaultdict(float)
    for use in uses:
        age = timedelta() if use.until is None else max(timedelta(), at - use.until)
        if age < FORGOTTEN:
            found[use.user] += use.seconds * 0.5 ** (age / HALF_LIFE)
    return dict(found)


def ahead(wishes: Iterable[Wish], used: Mapping[User, float]) -> dict[str, float]:
    """Search -> seconds that its user will have had before it: what he has had, and those of his that come before."""
    so_far = dict(used)
    found = {}
    for wish in sorted(wishes, key=lambda each: each.rank):
        found[wish.search] = so_far.get(wish.user, 0.0)
        so_far[wish.user] = found[wish.search] + wish.seconds
    return found
