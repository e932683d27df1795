"""Who was champion when, as the decisions about a deployment tell it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from autovision.records.deployments import Decision, DecisionKind, Deployment
from autovision.records.history import Reign


def made_champion(decision: Decision) -> str | None:
    """The model that a decision made champion, or left as it in a rollback that ended a rollout; None: neither."""
    numbers = decision.numbers
    match decision.kind:
        case DecisionKind.PROMOTE:
            # A verdict that nobody acted upon does not name the champion of before.
            acted = decision.accepted and "champion" in numbers and not numbers.get("steps")
            return decision.subject if acted else None
        case DecisionKind.ADVANCE:
            # Older ones say it in words alone.
            became = numbers.get("is_champion", decision.what == f"{decision.subject} is champion")
            return decision.subject if decision.accepted and became else None
        case DecisionKind.ROLLBACK:
            return decision.subject if decision.accepted else None
        case _:
            return None


def champion_before(decision: Decision) -> str | None:
    """Who was champion before a decision that made another one, where it tells."""
    if decision.kind is DecisionKind.ROLLBACK:
        ended = decision.numbers.get("rollout")
        before = decision.subject if ended else decision.numbers.get("from")
    else:
        before = decision.numbers.get("champion")
    return before if isinstance(before, str) else None


def reigns(decisions: Iterable[Decision], began: datetime) -> list[Reign]:
    """The reigns that decisions, the oldest first, tell of. One that began before them is taken to begin at `began`."""
    found: list[Reign] = []
    for decision in decisions:
        model, at = made_champion(decision), decision.created_at
        if model is None:
            continue
        before = champion_before(decision)
        if not found and before is not None:
            found.append(Reign(model=before, since=min(began, at), until=None, decision=None))
        if not found or found[-1].model != model:
            found[-1:] = [each.with_(until=at) for each in found[-1:]]
            found.append(Reign(model=model, since=at, until=None, decision=decision.id))
    return found


def checked(found: Sequence[Reign], deployment: Deployment) -> tuple[list[Reign], list[str]]:
    """The reigns as the deployment's own record ends them, and a remark where the decisions say something else."""
    said = found[-1].model if found else None
    if said == deployment.model:
        return list(found), []
    if deployment.model is None:
        return list(found), [f"decisions made {said} champion, and the deployment's record names none"]
    before = [each.with_(until=max(deployment.updated_at, each.since)) for each in found[-1:]]
    since = deployment.updated_at if found else deployment.created_at
    last = Reign(model=deployment.model, since=since, until=None, decision=None)
    note = f"no decision tells since when {deployment.model} is champion"
    return [*found[:-1], *before, last], [note]
