"""How searches look: in lists, in full, and while they run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from autovision.cli.front_view import front_table
from autovision.cli.output import facts, table

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.records.searches import SearchRequest, SearchState
    from autovision.records.trials import TrialResult
    from autovision.search.estimates.estimate import Estimate
    from autovision.search.explain import Contender, Cut, Explanation, Finish, Judged, Seconds, Winner
    from autovision.search.progress import ProgressEvent
    from autovision.search.sharing.queue import Entry, Outlook

_BEST = 10
_REASONS = 5
_OFFERED = (">chance at the gates", ">expected", "most at risk")


def summary(request: SearchRequest, state: SearchState) -> dict[str, Any]:
    """A search in a few plain figures."""
    from autovision.search import requests

    return {**requests.summary(request, state), "seed": request.seed, "created_at": state.created_at}


def searches_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Searches by their `summary`."""
    rows = [
        [
            each["search"],
            each["status"],
            each["trials"],
            _four(each["best"]),
            f"{each['spent_s']:.0f}/{each['budget_s']:.0f}",
            each["model"],
        ]
        for each in found
    ]
    return table(["!search", "status", ">trials", ">best", ">seconds", "model"], rows)


def entry(each: Entry) -> dict[str, Any]:
    """A search that runs or waits, in plain figures."""
    return {
        "search": each.request.id,
        "status": str(each.state.status),
        "position": each.position,
        "priority": each.request.priority,
        "submitted_at": each.state.created_at,
        "workers_per_trial": each.request.workers_per_trial,
        "share": each.share,
        "running": each.running,
        "cluster": each.cluster,
        "why": each.why,
    }


def queue(found: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Those that run and those that wait, by their `entry`, each with what it does or why it does not."""
    rows = [
        ["runs" if e["position"] is None else e["position"], e["search"], e["priority"], e["share"], e["why"]]
        for e in found
    ]
    return [table([">queue", "!search", ">priority", ">share", "how it stands"], rows)]


def outlook(found: Outlook) -> list[Any]:
    """What would happen to a search."""
    each = "trials" if found.whole != 1 else "trial"
    could = f"up to {found.share} {'trials' if found.share != 1 else 'trial'} at once"
    if found.share != found.whole:
        could += f"; {found.whole} {each} with the cluster to itself"
    turn = "begins at once" if found.waits is None else f"waits: {found.waits}"
    return [
        facts(
            {
                "cluster": f"{found.cluster}, {found.places} place{'' if found.places == 1 else 's'}",
                "can never run": "\n".join(found.faults),
                "queue": None if found.faults else f"position {found.position}; {turn}",
                "behind": ", ".join(found.ahead),
                "share": None if found.faults else could,
                "note": "\n".join(found.remarks),
            }
        )
    ]


def request_facts(request: SearchRequest, state: SearchState) -> Table:
    """What was asked, and how it stands."""
    best = None if state.best_value is None else f"{state.best_value:.4f} on validation, {state.best_trial}"
    trials = request.max_trials if state.max_trials is None else state.max_trials
    most = "" if trials is None else f" of {trials}"
    extended = "" if state.budget_s is None else f" (extended; asked for {request.budget_s:g})"
    return facts(
        {
            "search": request.id,
            "status": f"{state.status}, asked to stop" if state.stop_requested else state.status,
            "error": state.error,
            "data set": f"{request.dataset}@{request.dataset_version}",
            "space": request.space.get("name"),
            "reason": request.reason,
            "seconds": f"{state.spent_s:.1f} of {_budget_s(request, state):.4g}{extended}, attempt {state.attempt}",
            "cost": cost_of(request, state),
            "trials": f"{state.trials}{most}",
            "best": best,
            "model": state.model,
            "metric": request.metric,
            "costs": _costs(request),
            "finish": _finish(request),
            "minimised": ", ".join(request.objectives),
            "sampler": request.sampler if request.sampler != "tpe" else None,
            "seed": request.seed,
            "workers per trial": request.workers_per_trial if request.workers_per_trial > 1 else None,
            "priority": request.priority or None,
            "licences": ", ".join(request.licenses),
            "limits": _limits(request),
            "measured on": request.runtime if request.runtime != "evaluated" else None,
            "stops when": _stops(request),
            "left out": "\n".join(state.notes),
            "estimate": state.estimate,
            "ended early": state.ended_early,
            "warm start": request.warm_start,
            "parent": request.parent_model,
            "deployment": request.deployment,
            "made (UTC)": state.created_at,
        }
    )


def _budget_s(request: SearchRequest, state: SearchState) -> float:
    return request.budget_s if state.budget_s is None else state.budget_s


def cost_of(request: SearchRequest, state: SearchState) -> str | None:
    """What a search cost so far, of what it may; None: nobody gave prices."""
    if state.cost is None:
        return None
    from autovision.search.estimates.prices import money

    may = request.max_cost if state.max_cost is None else state.max_cost
    most = "" if may is None else f" of {money(may, state.currency)}"
    return f"{money(state.cost, state.currency)}{most}, at {money(state.per_hour or 0.0, state.currency)} an hour"


def _stops(request: SearchRequest) -> str:
    named = []
    if request.patience_s is not None:
        named.append(f"the best has not risen above noise for {request.patience_s:g} s")
    if request.converged:
        named.append("the rest of the budget is not expected to raise it")
    return ", or ".join(named)


def estimate(found: Estimate) -> list[Any]:
    """What a budget buys: in a few facts, and by backbone and resolution."""
    from autovision.search.estimates.prices import money

    cost = None if found.cost is None else f"{money(found.cost, found.currency)} for all of the budget"
    parts: list[Any] = [
        facts(
            {
                "budget": f"{found.budget_s:g} s, {found.cpus} {'trial' if found.cpus == 1 else 'trials'} at a time",
                "enough": None
                if found.enough
                else "likely not even for a first value: the first trial overruns it",
                "first value": f"after {found.first_s} s, of these features {found.features_s}",
                "it buys": f"{found.buys}, trained to the end",
                "finishing": f"{found.finish_s:.0f} s",
                "memory": None
                if found.memory_mb is None
                else f"up to {found.memory_mb:,.0f} MB a trial, beside the network",
                "cost": cost,
                "known": found.basis,
            }
        )
    ]
    rows = [
        [each.backbone, each.resolution or "own", each.seconds, "yes" if each.fits else "no"]
        for each in found.features
    ]
    if rows:
        title = "Features of the images as they are, cheapest first; with each further view as much again"
        parts.append(table(["backbone", ">px", ">seconds", "fits, after those above"], rows, title=title))
    return [
        *parts,
        "In brackets: the interval that four of five should lie in. Pruning makes room for more trials.",
    ]


def _costs(request: SearchRequest) -> str:
    return "\n".join(
        f"{said} for {true}: {cost:g}"
        for true, row in (request.costs or {}).items()
        for said, cost in row.items()
    )


def _finish(request: SearchRequest) -> str:
    """What was asked to be left out."""
    left_out = [
        name
        for name, wanted in (
            ("refit", request.refit),
            ("soup", request.soup),
            ("judging the best once more", request.confirm),
        )
        if not wanted
    ]
    return f"without {' and '.join(left_out)}" if left_out else ""


def _limits(request: SearchRequest) -> str:
    named = (
        ("latency", request.max_latency_ms, "ms"),
        ("memory", request.max_memory_mb, "MB"),
        ("size", request.max_size_mb, "MB"),
    )
    return ", ".join(f"{name} {limit:g} {unit}" for name, limit, unit in named if limit is not None)


def ledger(trials: Sequence[TrialResult], metric: str) -> list[Table]:
    """The best trials, how many ended how, and why some failed."""
    if not trials:
        return []
    states = Counter(str(trial.state) for trial in trials)
    parts = [best_trials(trials, metric), table(["ended", ">trials"], states.most_common())]
    reasons = Counter(_last_line(trial.error) for trial in trials if trial.error)
    if reasons:
        parts.append(table([">times", "why trials failed"], _reversed(reasons.most_common(_REASONS))))
    return parts


def best_trials(trials: Sequence[TrialResult], metric: str) -> Table:
    """The ten with the highest value."""
    usable = [(-trial.value, trial.number, trial) for trial in trials if trial.value is not None]
    ranked = [trial for *_, trial in sorted(usable, key=lambda each: each[:2])]
    return table(
        [f">{metric}", "ended", "backbone", ">px", ">unfreeze", "views", ">lr", ">s"],
        [_trial_row(trial, metric) for trial in ranked[:_BEST]],
        title=f"The best {min(_BEST, len(ranked))} of {len(trials)} trials, on validation",
    )


_MAPPINGS = ("ended", "by_backbone", "differs", "changed", "costs", "config")
"""fields of an explanation that are mappings; all other objects in it are records"""


def as_explanation(data: Any) -> Any:
    """What `explanation` shows, from the JSON form of an `Explanation`, without what it takes to make one."""
    if isinstance(data, list):
        return [as_explanation(each) for each in data]
    if not isinstance(data, dict):
        return data
    return SimpleNamespace(
        **{name: value if name in _MAPPINGS else as_explanation(value) for name, value in data.items()}
    )


def explanation(found: Explanation) -> list[Any]:
    """An explanation in tables, each only where there is something to say."""
    seconds, winner = found.seconds, found.winner
    trials = ", ".join(f"{count} {state}" for state, count in found.ended.items())
    first = "" if seconds.first_value is None else f", first value after {seconds.first_value:.1f}"
    parts: list[Any] = [
        facts(
            {
                "search": found.search,
                "status": found.status,
                "error": found.error,
                "ended early": found.ended_early,
                "expected": found.expected,
                "trials": trials or "none",
                "winner": None
                if winner is None
                else f"{winner.trial}, {found.metric} {winner.value:.4f} on validation",
                "came from": None if winner is None else winner.origin,
                "runner-up": _runner_up(winner, found.metric),
                "made of": _made_of(found.finish),
                "seconds": f"{seconds.wall:.1f} by the clock{_by_the_clock(seconds)}{first}",
                "of all trials": f"features {seconds.features:.1f}, training {seconds.training:.1f}; "
                f"of these in pruned trials {seconds.pruned:.1f}, in failed ones {seconds.failed:.1f}",
            }
        )
    ]
    if found.candidates:
        beside = [[each.told, _four(each.value), *_offered(each)] for each in found.candidates]
        title = "Beside the champion, on validation as each would serve: the first became the model"
        parts.append(table(["candidate", ">value", *_OFFERED], beside, title=title))
    if found.confirmed:
        compared = any(each.expected is not None for each in found.confirmed)
        again = [
            [each.trial, _four(each.value), _four(each.confirmed), *(_offered(each) if compared else ())]
            for each in found.confirmed
        ]
        title = "Judged once more, on validation and by cross-validation on train: "
        if winner is None or winner.trial == found.confirmed[0].trial:
            title += "the first became the model"
        else:
            title += f"the model is {winner.trial}, which cannot be, by its lead on validation"
        heads = ["trial", ">value on validation", ">value on both", *(_OFFERED if compared else ())]
        parts.append(table(heads, again, title=title))
    if found.front is not None:
        parts.append(front_table(found.front, found.metric, found.search))
    if winner is not None and winner.differs:
        rows = [[name, own, theirs] for name, (own, theirs) in winner.differs.items()]
        parts.append(table(["what differs", "winner", "runner-up"], rows))
    if found.ladder:
        rows = [
            [
                each.name,
                "" if each.trials is None else each.trials,
                "" if each.batches is None else each.batches,
                f"{each.seconds:.1f}",
                _four(each.best),
            ]
            for each in found.ladder
        ]
        parts.append(table(["rung", ">trials", ">computations", ">seconds", f">best {found.metric}"], rows))
    if found.importance:
        rows = [[each.parameter, f"{each.share:.2f}", each.best, each.trials] for each in found.importance]
        title = "What mattered: share of the differences after the first rung"
        parts.append(table(["parameter", ">share", "best choice", ">trials"], rows, title=title))
    if len(seconds.by_backbone) > 1:
        rows = [[name, f"{spent:.1f}"] for name, spent in seconds.by_backbone.items()]
        parts.append(table(["backbone", ">seconds of its trials"], rows))
    if found.pruned:
        parts.append(_pruned(found.pruned))
    if found.failures:
        rows = [[each.trials, each.reason, each.example] for each in found.failures]
        parts.append(table([">trials", "why they failed", "one of them"], rows))
    if found.left_out:
        parts.append(table(["left out before the first trial"], [[note] for note in found.left_out]))
    return parts


def _made_of(finish: Finish | None) -> str | None:
    """What became of the best trials on the way to the model, and how that was decided."""
    if finish is None:
        return None
    parts = [f"the average of {len(finish.trials)} trials' weights"] if len(finish.trials) > 1 else []
    if finish.refit is not None:
        parts.append(f"trained again on {finish.refit:,} images of train and validation")
    return "\n".join([*([", ".join(parts)] if parts else []), *finish.notes]) or None


def _by_the_clock(seconds: Seconds) -> str:
    if not (seconds.feasibility or seconds.finish):
        return ""
    rest = max(0.0, seconds.wall - seconds.feasibility - seconds.finish)
    return f": before the trials {seconds.feasibility:.1f}, with them {rest:.1f}, the finish {seconds.finish:.1f}"


def _runner_up(winner: Winner | None, metric: str) -> str | None:
    if winner is None or winner.runner_up is None or winner.lead is None:
        return None
    if winner.lead < 0:
        return f"{winner.runner_up}, ahead by {-winner.lead:.4f} on {winner.judged_on}, but less is expected of it"
    return (
        f"{winner.runner_up}, behind by {winner.lead:.4f} on {winner.judged_on}, "
        f"in the value that trials are ranked by ({metric} less a fiftieth of the log loss)"
    )


def _offered(each: Contender | Judged) -> list[str]:
    """What is expected of offering it to the gates."""
    chance = "" if each.chance is None else f"{each.chance:.0%}"
    return [chance, _four(each.expected), each.at_risk]


def _pruned(cuts: Sequence[Cut]) -> Table:
    shown = cuts[:_BEST]
    rows = [
        [each.trial, f"{each.search_s:.1f}", each.epoch, _four(each.value), _four(each.needed), each.seen]
        for each in shown
    ]
    title = f"Pruned, being behind trials of their kind that had cost as much: {len(shown)} of {len(cuts)}"
    if (shared := sum(each.why == "shared" for each in cuts)) > 0:
        title += f"; {shared} of them gave a place to another search instead"
    return table(["trial", ">at s", ">epoch", ">value", ">needed", ">of"], rows, title=title)


def progress_event(
    request: SearchRequest, state: SearchState, trials: Sequence[TrialResult], *, least_s: float
) -> ProgressEvent:
    """What the store says of a search that runs elsewhere. How many trials run is not known there.

    `least_s` is what was shown before: time never goes back.
    """
    from autovision.search.following import elapsed_s
    from autovision.search.progress import ProgressEvent
    from autovision.search.select import counts

    elapsed = elapsed_s(state, max([least_s, *(point.search_s for trial in trials for point in trial.curve)]))
    most = request.max_trials if state.max_trials is None else state.max_trials
    budget_s = _budget_s(request, state)
    return ProgressEvent(elapsed_s=elapsed, budget_s=budget_s, most=most, **counts(trials, request.metric))


def _four(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _trial_row(trial: TrialResult, metric: str) -> list[Any]:
    config = trial.config
    return [
        f"{trial.metrics.get(metric, trial.value or 0.0):.4f}",
        trial.state,
        str(config.get("backbone", "")).removeprefix("tf_"),
        config.get("resolution"),
        config.get("unfreeze"),
        config.get("augmentation"),
        config.get("lr"),
        f"{trial.seconds:.1f}",
    ]


def _last_line(error: str) -> str:
    return error.strip().splitlines()[-1] if error.strip() else "no reason given"


def _reversed(pairs: Sequence[tuple[str, int]]) -> list[tuple[int, str]]:
    return [(count, reason) for reason, count in pairs]
