"""What a token may submit: searches at once, and seconds of search within 24 hours.

Budgets are counted when they are granted, not when they are spent: what is promised cannot be promised twice. The
ledger of a token is one record, changed by compare-and-swap, so that of many submits at once none slips through.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from autovision.records.searches import SearchState, SearchStatus
from autovision.records.service import Charge, Usage
from autovision.records.tokens import Token
from autovision.service.problems import QuotaUsedUp
from autovision.service.schema import Left
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store

DAY = timedelta(hours=24)
FRESH = timedelta(seconds=60)
"""so long a charge counts as a search that is not there yet: it is being written"""
RETRY_S = 30
"""when searches at once are used up: one of them may end at any moment"""


class Verdict(NamedTuple):
    """Whether a charge is allowed. `fault`: None if it is."""

    fault: str | None
    left: Left
    retry_after_s: int


def judge(
    token: Token, usage: Usage, active: Collection[str], search: str, seconds: float, at: datetime
) -> Verdict:
    """Whether a token may have a search work for so many seconds more. Pure.

    Args:
        active: those of the ledger's searches that wait or run.
    """
    left = left_of(token, usage, active, at)
    free, seconds_left = left.searches, left.search_s
    if free is not None and search not in active and free < 1:
        fault = (
            f"{len(set(active))} searches of this token wait or run, and it may have {token.max_searches} at once; "
            "wait for one to end, or stop one"
        )
        return Verdict(fault, left, RETRY_S)
    if seconds_left is not None and seconds > seconds_left:
        fault = (
            f"{seconds:g} s of search are asked for, and {seconds_left:g} of the {token.max_search_s_per_day:g} s that "
            "this token may have within 24 hours are left; ask for less, or later"
        )
        return Verdict(fault, left, _until(token, usage, seconds, seconds_left, at))
    return Verdict(None, left, 0)


def left_of(token: Token, usage: Usage, active: Collection[str], at: datetime) -> Left:
    """What a token may still have."""
    most, most_s = token.max_searches, token.max_search_s_per_day
    used_s = sum(charge.seconds for charge in usage.charges if at - charge.at < DAY)
    return Left(
        searches=None if most is None else max(0, most - len(set(active))),
        search_s=None if most_s is None else max(0.0, most_s - used_s),
    )


def _until(token: Token, usage: Usage, seconds: float, left_s: float, at: datetime) -> int:
    """Seconds until enough of the charges are a day old; a day for what the quota never allows."""
    for charge in sorted(usage.charges, key=lambda each: each.at):
        if at - charge.at < DAY:
            left_s += charge.seconds
            if left_s >= seconds:
                return math.ceil((charge.at + DAY - at).total_seconds())
    return int(DAY.total_seconds())


def reserve(store: Store, token: Token | None, search: str, seconds: float, at: datetime) -> None:
    """Charge a token for a search, before it is submitted or goes on.

    The same charge within the same minute counts once, unless the search has ended meanwhile, and used it.

    Raises `QuotaUsedUp`, changing nothing.
    """
    if token is None or not token.has_quota:
        return
    asked = token

    def change(usage: Usage) -> Usage | None:
        mine = [charge for charge in usage.charges if charge.search == search]
        active = _active(store, usage, at)
        if search in active and any(charge.seconds == seconds and at - charge.at < FRESH for charge in mine):
            return None
        verdict = judge(asked, usage, active, search, seconds, at)
        if verdict.fault is not None:
            raise QuotaUsedUp(verdict.fault, verdict.left, verdict.retry_after_s)
        kept = [each for each in usage.charges if at - each.at < DAY or each.search in active]
        return usage.with_(charges=(*kept, Charge(search=search, seconds=seconds, at=at)))

    key = keys.token_usage(token.id)
    records.create_or_read(store, key, Usage(token=token.id))
    records.update(store, key, Usage, change)


def give_back(store: Store, token: Token | None, search: str, at: datetime) -> None:
    """Undo a charge of this moment: what it was for was not done after all."""
    if token is None or not token.has_quota:
        return

    def change(usage: Usage) -> Usage:
        kept = [each for each in usage.charges if (each.search, each.at) != (search, at)]
        return usage.with_(charges=tuple(kept))

    records.update(store, keys.token_usage(token.id), Usage, change)


def left(store: Store, token: Token | None, at: datetime) -> Left:
    """What a token may still submit."""
    if token is None or not token.has_quota:
        return Left(searches=None, search_s=None)
    try:
        usage = records.read(store, keys.token_usage(token.id), Usage)
    except KeyNotFound:
        usage = Usage(token=token.id)
    return left_of(token, usage, _active(store, usage, at), at)


def _active(store: Store, usage: Usage, at: datetime) -> set[str]:
    """The ledger's searches that wait or run, or are being written."""
    charged = {charge.search: charge.at for charge in usage.charges}
    states = records.read_many(store, map(keys.search_state, charged), SearchState)
    found = set()
    for search, since in charged.items():
        state = states.get(keys.search_state(search))
        if state is None:
            if at - since < FRESH:
                found.add(search)
        elif state.status in (SearchStatus.QUEUED, SearchStatus.RUNNING):
            found.add(search)
    return found
