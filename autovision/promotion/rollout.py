"""Promotion as an act: compare, decide, and change what is served, step by step.

Every change of a deployment and the decision that led to it are one write (see `deployments.decide`), so that whoever
is killed leaves neither without the other, and of two who act at once one is refused.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from datetime import datetime

from autovision.errors import Conflict, InvalidInput, near
from autovision.model.version import read_version
from autovision.promotion import evidence, later
from autovision.promotion.comparison import compare
from autovision.promotion.policy import decide
from autovision.promotion.refused import Refused, Short, due, wanted
from autovision.promotion.staging import Turn, TurnVerdict, next_turn
from autovision.records.base import now
from autovision.records.deployments import Decision, DecisionKind, Deployment, Verdict
from autovision.records.models import ModelVersion
from autovision.records.rollouts import Rollout, Stage, Step
from autovision.records.searches import Costs, SearchRequest
from autovision.registry import deployments
from autovision.store import keys, records
from autovision.store.protocol import Store


def consider(
    store: Store,
    name: str,
    model_id: str,
    *,
    metric: str = "accuracy",
    costs: Costs | None = None,
    force: bool = False,
    at_once: bool = False,
    person: str | None = None,
    revision: int | None = None,
    clock: Callable[[], datetime] = now,
) -> Decision:
    """Compare a model with a deployment's champion on held-out data, and let it begin to take over if it may.

    Both answer the test split of the data set version that the challenger was trained on, which the
    champion never trained on either: a version keeps the splits of those before it. What may begin goes
    through the steps of the deployment's policy; the first model of all, and any where there are no steps,
    is champion at once.

    Args:
        costs: of answers, for the metric `neg_mean_cost`.
        force: promote whatever the gates say; the decision records their verdict and that it was overruled.
        at_once: leave out the steps.
        person: who asks for it; None: nobody, so that a policy that wants a person's approval keeps it waiting.
        revision: of the deployment when it was found that the model is to be considered; None: whichever it is.

    Raises:
        NotFound: no such deployment or model.
        Conflict: another model was promoted meanwhile, or is on its way.
    """
    deployment = deployments.get(store, name)
    if revision not in (None, deployment.revision):
        raise Conflict(f"deployment {name!r} changed before {model_id!r} was considered; look at it again")
    challenger = read_version(store, model_id)
    under_way = deployment.rollout.model if deployment.rollout else None
    if challenger.id in (deployment.model, under_way):
        where = "is the champion" if challenger.id == deployment.model else "is on its way"
        verdict = Verdict(
            accepted=True, what="nothing to do", why=f"{challenger.id} {where} already", numbers={}
        )
        # It changes nothing, not even what was last decided.
        decision = _decision(deployment, challenger, verdict, clock())
        deployments.record_decision(store, decision)
        return decision
    if under_way is not None:
        raise Conflict(
            f"deployment {name!r} is in the middle of a rollout of {under_way!r}; wait for its end, or end it with "
            f"`autovision rollback {name}`"
        )
    found = compare(store, deployment, challenger, costs)
    verdict = decide(
        found.paired,
        metric=metric,
        policy=deployment.gate_policy,
        corrupted=found.corrupted,
        taken=found.taken,
    )
    return _settle(
        store, deployment, challenger, verdict, person, clock(), costs=costs, force=force, at_once=at_once
    )


def look_again(
    store: Store,
    name: str,
    case: Refused,
    words: int,
    *,
    short: MutableMapping[str, Short] | None = None,
    revision: int | None = None,
    clock: Callable[[], datetime] = now,
) -> Decision | None:
    """Judge a refused challenger by what was labelled since, if there is enough for another look.

    Args:
        case: see `refused.candidates`.
        words: labels of any kind that there are.
        short: by model, why there was not enough the last time; what is found out now is added.
        revision: of the deployment when it was found that the challenger is a candidate; None: whichever it is.

    Returns:
        What was decided; None: there is not enough yet, or another model is on its way.

    Raises:
        NotFound: no such deployment or model.
        Conflict: the deployment changed meanwhile.
    """
    deployment = deployments.get(store, name)
    if revision not in (None, deployment.revision):
        raise Conflict(
            f"deployment {name!r} changed before {case.model!r} was judged again; look at it again"
        )
    if deployment.model != case.champion or deployment.rollout is not None:
        return None
    if deployment.rollout_policy.approval == "manual":
        return None  # a person has had the gates' word already
    at = clock()
    if short is not None and case.model in short and short[case.model].still(words, at):
        return None
    champion, challenger = (read_version(store, model) for model in (case.champion, case.model))
    found = later.gather(store, deployment, challenger, champion)
    if not due(case, len(found)):
        if short is not None:
            short[challenger.id] = Short(words, wanted(case) - len(found), at)
        return None
    searched = records.read(store, keys.search_request(challenger.lineage.search), SearchRequest)
    first = compare(store, deployment, challenger, searched.costs)
    since = later.pair(store, deployment, champion, challenger, found, first.paired)
    verdict = later.judge(first, since, case, len(found), deployment.gate_policy)
    return _settle(store, deployment, challenger, verdict, None, clock(), costs=searched.costs)


def waiting(store: Store, name: str) -> list[Decision]:
    """Of the models that wait for a person's approval, what the gates said."""
    latest = {d.subject: d for d in deployments.decisions(store, name) if d.kind is DecisionKind.PROMOTE}
    return [decision for decision in latest.values() if decision.numbers.get("waits")]


def approve(
    store: Store, name: str, model_id: str, *, person: str, clock: Callable[[], datetime] = now
) -> Decision:
    """Let a model begin that waits for approval. Raises `InvalidInput` if it does not wait."""
    asked, deployment = _waiting_one(store, name, model_id), deployments.get(store, name)
    of_later = (asked.numbers.get("later") or {}).get("champion")
    if of_later is not None and (of_later, None) == (deployment.model, deployment.rollout):
        # What it was judged by stands: the test split alone would not show it.
        verdict = Verdict(
            accepted=True,
            what="promote the challenger over the champion",
            why=f"approved by {person}; {asked.why}",
            numbers={key: value for key, value in asked.numbers.items() if key != "waits"},
        )
        challenger = read_version(store, model_id)
        return _begin(store, deployment, challenger, verdict, person, clock(), force=False, at_once=False)
    by_hand = deployment.rollout_policy.approval == "manual"
    return consider(
        store,
        name,
        model_id,
        metric=asked.numbers["metric"],
        costs=asked.numbers["costs"],
        force=by_hand,
        person=person,
        clock=clock,
    )


def reject(
    store: Store, name: str, model_id: str, *, person: str, clock: Callable[[], datetime] = now
) -> Decision:
    """Refuse a model that waits for approval. Raises `InvalidInput` if it does not wait."""
    _waiting_one(store, name, model_id)
    verdict = Verdict(
        accepted=False,
        what="refuse the challenger; what is served stays",
        why=f"rejected by {person}",
        numbers={},
    )
    return _record(store, deployments.get(store, name), read_version(store, model_id), verdict, clock())


def go_on(
    store: Store, name: str, *, at_once: bool = False, clock: Callable[[], datetime] = now
) -> Decision | None:
    """Take the next step of a deployment's rollout if it is time to, or roll it back if it does harm.

    Args:
        at_once: take the step even if it is too early, for a person who asks for it; what does harm is rolled back.

    Returns:
        What was decided; None: it stays where it is, or there is no rollout.
    """
    deployment = deployments.get(store, name)
    rollout, at = deployment.rollout, clock()
    if rollout is None:
        return None
    found = evidence.gather(store, deployment, rollout)
    verdict = next_turn(rollout, found, at)
    if verdict.turn is Turn.STAY and not at_once:
        return None
    decision = _turned(deployment, rollout, verdict, at)

    def change(current: Deployment) -> Deployment:
        if current.rollout != rollout:
            raise Conflict(f"the rollout of deployment {name!r} went on meanwhile; look at it again")
        if verdict.turn is Turn.ROLL_BACK:
            return current.with_(rollout=None)
        if rollout.last:
            return deployments.with_champion(current, rollout.model)
        return current.with_(rollout=rollout.after(found.challenger.answered, at))

    deployments.decide(store, name, change, decision)
    return decision


def roll_back(store: Store, name: str, *, clock: Callable[[], datetime] = now) -> Decision:
    """End the rollout that is under way, or else make the champion before this one the champion again.

    Raises `InvalidInput` if there is neither.
    """
    before, at = deployments.get(store, name), clock()
    rollout = before.rollout

    def undone(current: Deployment) -> Deployment:
        if rollout is not None:
            return current.with_(rollout=None)
        return deployments.with_champion_before(current)

    after = undone(before)
    left = rollout.model if rollout is not None else before.model
    decision = Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.ROLLBACK,
        deployment=name,
        accepted=True,
        what=f"roll back from {left} to {after.model}",
        why="asked for by hand",
        subject=after.model,
        numbers={"from": left, "rollout": rollout.id if rollout is not None else None},
        created_at=at,
    )

    def change(current: Deployment) -> Deployment:
        if (current.model, current.rollout) != (before.model, rollout):
            raise Conflict(f"deployment {name!r} changed meanwhile; look at it, and roll back again")
        return undone(current)  # what else changed meanwhile, such as a policy, stays

    deployments.decide(store, name, change, decision)
    return decision


def _settle(
    store: Store,
    deployment: Deployment,
    challenger: ModelVersion,
    verdict: Verdict,
    person: str | None,
    at: datetime,
    *,
    costs: Costs | None,
    force: bool = False,
    at_once: bool = False,
) -> Decision:
    """Act on the gates' verdict, or wait for a person's approval where the policy asks for it."""
    policy = deployment.rollout_policy
    if (
        person is None
        and policy.approval != "automatic"
        and (verdict.accepted or policy.approval == "manual")
    ):
        waits = verdict.with_(
            accepted=False,
            what="wait for a person's approval",
            why=f"the policy asks for it; the gates say: {verdict.what}: {verdict.why}",
            numbers={**verdict.numbers, "waits": True, "costs": costs},
        )
        return _record(store, deployment, challenger, waits, at)
    return _begin(store, deployment, challenger, verdict, person, at, force=force, at_once=at_once)


def _record(
    store: Store, deployment: Deployment, challenger: ModelVersion, verdict: Verdict, at: datetime
) -> Decision:
    """A verdict that changes nothing but the record of what was decided."""
    decision = _decision(deployment, challenger, verdict, at)
    deployments.record_verdict(store, deployment, decision)
    return decision


def _begin(
    store: Store,
    deployment: Deployment,
    challenger: ModelVersion,
    verdict: Verdict,
    person: str | None,
    at: datetime,
    *,
    force: bool,
    at_once: bool,
) -> Decision:
    """Act on the gates' verdict."""
    overruled = force and not verdict.accepted
    policy = deployment.rollout_policy
    steps = () if at_once or deployment.model is None else policy.steps()
    decision = _decision(
        deployment,
        challenger,
        verdict.with_(
            accepted=verdict.accepted or force,
            what="promote the challenger by hand" if overruled else verdict.what,
            why=("promoted by hand against the gate's advice; " if overruled else "") + verdict.why,
            numbers={
                **verdict.numbers,
                "champion": deployment.model,
                "overruled": overruled,
                "person": person,
                "steps": [step.model_dump(mode="json") for step in steps],
            },
        ),
        at,
    )
    if not decision.accepted:
        deployments.record_verdict(store, deployment, decision)
    elif steps:
        rollout = Rollout(
            id=decision.id,
            model=challenger.id,
            steps=steps,
            **policy.model_dump(include={"false_alarm", "error_margin", "latency_ratio"}),
            began_at=at,
            step_began_at=at,
        )
        deployments.begin_rollout(store, deployment, rollout, decision)
    else:
        deployments.set_champion(
            store, deployment.name, challenger.id, expected=deployment.model, decision=decision
        )
    return decision


def _decision(deployment: Deployment, challenger: ModelVersion, verdict: Verdict, at: datetime) -> Decision:
    over = f" over {deployment.model}" if deployment.model else ""
    return Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.PROMOTE,
        deployment=deployment.name,
        accepted=verdict.accepted,
        what=f"{verdict.what}: {challenger.id}{over}",
        why=verdict.why,
        subject=challenger.id,
        numbers=verdict.numbers,
        created_at=at,
    )


def _turned(deployment: Deployment, rollout: Rollout, verdict: TurnVerdict, at: datetime) -> Decision:
    """The decision that a turn of a rollout is."""
    if verdict.turn is Turn.ROLL_BACK:
        kind, subject = DecisionKind.ROLLBACK, deployment.model
        what = f"roll back from {rollout.model} to {deployment.model}"
    else:
        kind, subject = DecisionKind.ADVANCE, rollout.model
        what = (
            f"{rollout.model} is champion"
            if rollout.last
            else f"{rollout.model} goes on: {told(rollout.steps[rollout.at + 1])}"
        )
    early = "asked for by hand; " if verdict.turn is Turn.STAY else ""
    return Decision(
        id=keys.timestamped_id(at),
        kind=kind,
        deployment=deployment.name,
        accepted=True,
        what=what,
        why=early + verdict.why,
        subject=subject,
        numbers={
            **verdict.numbers,
            "from": rollout.model,
            "is_champion": kind is DecisionKind.ADVANCE and rollout.last,
        },
        created_at=at,
    )


def told(step: Step) -> str:
    """A step in words."""
    if step.stage is Stage.SHADOW:
        return f"a shadow of {step.share:.0%} of the requests"
    return f"a canary that answers {step.share:.0%} of the requests"


def _waiting_one(store: Store, name: str, model_id: str) -> Decision:
    found = {decision.subject: decision for decision in waiting(store, name)}
    if model_id not in found:
        raise InvalidInput(
            f"model {model_id!r} does not wait for approval in deployment {name!r}{near(model_id, map(str, found))}; "
            f"waiting: {', '.join(map(str, found)) or 'none'}"
        )
    return found[model_id]
