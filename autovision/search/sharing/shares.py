"""How searches share one cluster: whose turn it is, and how many trials each may run. Pure functions.

A *place* is what one worker takes: a GPU, or its share of one, with its CPUs, or one CPU (`placement.placement`). A
trial takes as many places as it has workers, all or none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

UNLIMITED = 1 << 30
"""the share of a search that has the cluster to itself"""


@dataclass(frozen=True)
class Claim:
    """What a search asks of a cluster.

    Attributes:
        workers: places that each of its trials takes.
        wants: trials that it has a use for at once; None: as many as there is room for.
        begun_at: None: it waits for its turn.
        ahead: seconds that its user will have had before it; see `fairness`.
    """

    search: str
    submitted_at: datetime
    priority: int = 0
    workers: int = 1
    wants: int | None = None
    begun_at: datetime | None = None
    ahead: float = 0.0

    @property
    def rank(self) -> tuple[int, float, datetime, str]:
        """Sorts a queue: higher priority first, then whose user has had less, then who was submitted earlier."""
        return -self.priority, self.ahead, self.submitted_at, self.search

    @property
    def least(self) -> int:
        """Places without which it stands still."""
        return 0 if self.wants == 0 else self.workers


def weight(priority: int) -> float:
    """What a priority is worth: each step up counts double."""
    return 2.0**priority


def shares(places: int, claims: Iterable[Claim]) -> dict[str, int]:
    """Search -> trials that it may run at once, of those that have begun.

    First each gets one trial, in the order in which they began: none that runs stands still because another one
    came. The other places go one trial at a time to whom has least for its weight (D'Hondt's rule, the weighted
    max-min share in whole trials), until nobody who wants more has room for another trial. The sum of the places
    never exceeds those that there are.
    """
    begun = [claim for claim in claims if claim.begun_at is not None]
    given = {claim.search: 0 for claim in begun}
    left = places

    def fits(claim: Claim) -> bool:
        return claim.workers <= left and (claim.wants is None or given[claim.search] < claim.wants)

    for claim in sorted(begun, key=_seniority):
        if fits(claim):
            given[claim.search] += 1
            left -= claim.workers
    while hungry := [claim for claim in begun if fits(claim)]:
        claim = min(
            hungry,
            key=lambda each: (
                (given[each.search] + 1) * each.workers / weight(each.priority),
                each.rank,
            ),
        )
        given[claim.search] += 1
        left -= claim.workers
    return given


def turns(places: int, claims: Iterable[Claim]) -> Mapping[str, str | None]:
    """Search -> None if it may begin, else why it has to wait, of those that wait; in the order of the queue.

    It may begin when a trial of it fits beside one trial of each that runs. None overtakes another: whoever needs
    many places would wait for ever if small searches were let in past it.
    """
    claims = list(claims)
    running = sorted((each for each in claims if each.begun_at is not None and each.least), key=_seniority)
    left = places - sum(claim.least for claim in running)
    found: dict[str, str | None] = {}
    ahead: Claim | None = None
    for claim in sorted((each for each in claims if each.begun_at is None), key=lambda each: each.rank):
        if ahead is not None:
            found[claim.search] = f"waits behind {ahead.search}{_of_priority(ahead)}"
        elif claim.workers <= left:
            found[claim.search] = None
            left -= claim.workers
            running.append(claim)
        else:
            found[claim.search] = _full(places, claim, running)
            ahead = claim
    return found


def _seniority(claim: Claim) -> tuple[datetime, tuple[int, float, datetime, str]]:
    """Who began earlier goes first; of those that did not begin, nobody asks."""
    return claim.begun_at or claim.submitted_at, claim.rank


def _full(places: int, claim: Claim, running: list[Claim]) -> str:
    need = f"needs {claim.workers} of {_places(places)}"
    if not running:
        return f"{need}; the cluster is too small"
    names = ", ".join(each.search for each in running[:3]) + (", …" if len(running) > 3 else "")
    kept = sum(each.least for each in running)
    return f"{need}; {kept} {'is' if kept == 1 else 'are'} kept for {names}"


def _places(number: int) -> str:
    return f"{number} place" + ("" if number == 1 else "s")


def _of_priority(claim: Claim) -> str:
    return f" (priority {claim.priority})" if claim.priority else ""
