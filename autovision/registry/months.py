"""A deployment's months in sums. What was asked and labelled is counted from listings: next to nothing is read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from autovision.records.history import DriftWindow, Month, Reign, SearchFacts
from autovision.store import captures, keys
from autovision.store.protocol import Store

_EVER = datetime.min.replace(tzinfo=UTC)
MOST_COUNTED = 400
"""files of requests that are counted one by one"""


def month_of(at: datetime) -> str:
    """`2026-03`, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m}"


def sums(
    whole: tuple[datetime, datetime],
    found: Sequence[Reign],
    windows: Sequence[DriftWindow],
    searches: Sequence[SearchFacts],
    requests: Mapping[str, int],
    labelled: Mapping[str, int],
) -> tuple[Month, ...]:
    """The months of a time, and of what is said to lie outside of it, without gaps."""
    of: dict[str, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    for reign in found:
        if reign.decision is not None and reign.since >= whole[0]:
            of[month_of(reign.since)]["champions"] += 1
    for window in windows:
        month = of[month_of(window.end)]
        month["windows"] += 1
        month["alarms"] += window.alarm
        month["harmful"] += window.harm is True
        month["harmless"] += window.harm is False
    for search in searches:
        month = of[month_of(search.at)]
        month["searches"] += 1
        month["spent_s"] += search.spent_s
        if search.cost is not None:
            cost = month.setdefault("cost", {})
            cost[search.currency] = cost.get(search.currency, 0.0) + search.cost
    for name, counts in (("requests", requests), ("labelled", labelled)):
        for which, count in counts.items():
            of[which][name] += count
    begin, end = map(month_of, whole)
    through = _through(min([begin, *of]), max([end, *of]))
    return tuple(Month(month=which, **of[which]) for which in through)


def requests(store: Store, name: str, since: datetime) -> tuple[Mapping[str, int], bool]:
    """Captured requests by month, and whether all were counted: of very many files only some.

    A request belongs to the time at which its file was written, a few seconds later.
    """
    listed = [*store.list(keys.captures(name))]
    # What was kept of a file counts once that is gone.
    twice = {keys.kept_captures(key) for key in listed if not keys.are_kept_captures(key)}
    files = [
        (at, key)
        for key in listed
        if key not in twice and (at := keys.time_of(key)) is not None and at >= since
    ]
    step = max(1, -(-len(files) // MOST_COUNTED))
    found: dict[str, int] = {}
    for month, of in groupby(files, key=lambda each: month_of(each[0])):
        all_of = [key for _, key in of]
        counted = [captures.count(store, key) for key in all_of[::step]]
        found[month] = found.get(month, 0) + round(len(all_of) * sum(counted) / len(counted))
    return found, step == 1


def labelled(
    store: Store, name: str, since: datetime, until: datetime, *, begun: datetime = _EVER
) -> Mapping[str, int]:
    """Labelled requests by month: that of the request where its id tells it, else that in which a label was stored.

    Ids come from outside: one that names a time before there was anything (`begun`), or to come, tells none.
    """
    prefix, found = keys.labels(name), defaultdict[str, int](int)
    asked = {key.removeprefix(prefix).partition("/")[0] for key in store.list(prefix)}
    known = ((request, keys.time_of(request)) for request in asked)
    told = {request: at for request, at in known if at is not None and begun <= at <= until}
    moments = [*told.values()]
    if len(told) < len(asked):
        stored = {each.key.removeprefix(prefix).partition("/")[0]: each for each in store.entries(prefix)}
        moments += [stored[request].modified_at for request in asked - told.keys() if request in stored]
    for at in moments:
        if at >= since:
            found[month_of(at)] += 1
    return found


def _through(first: str, last: str) -> list[str]:
    """All months from the first to the last one."""
    (year, month), (last_year, last_month) = (map(int, each.split("-")) for each in (first, last))
    return [
        f"{index // 12:04d}-{index % 12 + 1:02d}"
        for index in range(12 * year + month - 1, 12 * last_year + last_month)
    ]
