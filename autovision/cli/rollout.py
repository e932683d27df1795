"""`autovision rollout`: how a challenger takes over step by step, how far it is, and what a person has to say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autovision.cli import remote
from autovision.cli.decisions import decision_facts
from autovision.cli.deployment import DeploymentName
from autovision.cli.options import Address, Json, Store, TokenFile
from autovision.cli.output import answering, facts, library, table, text
from autovision.cli.policies import changed

if TYPE_CHECKING:
    from rich.table import Table

    from autovision.promotion.staging import Evidence
    from autovision.records.deployments import Decision, Deployment
    from autovision.records.gates import GatePolicy
    from autovision.records.rollouts import ArmCounts, RolloutPolicy

app = typer.Typer(no_args_is_help=True, help="How challengers take over step by step, and how far one is.")

Waiting = Annotated[
    str, typer.Argument(metavar="MODEL", help="A model that waits; `rollout show` lists them.")
]


@app.command()
def show(deployment: DeploymentName, store: Store = None, as_json: Json = False) -> None:
    """Show the rollout that is under way with its evidence, what waits for approval, and the policy."""
    with answering(as_json) as out:
        av = library(store)
        found = av.deployment(deployment)
        evidence, waiting = av.rollout_evidence(deployment), av.waiting_for_approval(deployment)
        out.answer(
            {
                "deployment": found.name,
                "champion": found.model,
                "rollout": found.rollout,
                "evidence": _evidence_json(evidence),
                "waiting": waiting,
                "policy": found.rollout_policy,
            },
            _facts(found, evidence),
            *([_arms_table(evidence)] if evidence else []),
            *([_waiting_table(waiting)] if waiting else []),
            facts(_policy(found.rollout_policy)),
        )


@app.command()
def policy(
    deployment: DeploymentName,
    approval: Annotated[
        str | None,
        typer.Option(
            "--approval",
            metavar="WHO",
            help="automatic: the gates; manual: a person, whatever the gates say; both: the gates, then a person.",
        ),
    ] = None,
    shadow_requests: Annotated[
        int | None,
        typer.Option(
            "--shadow-requests", metavar="N", help="Copies that it answers as a shadow first, at least."
        ),
    ] = None,
    shadow_s: Annotated[
        float | None, typer.Option("--shadow-s", metavar="SECONDS", help="How long it is a shadow, at least.")
    ] = None,
    shadow_share: Annotated[
        float | None,
        typer.Option("--shadow-share", metavar="P", help="Of the requests that a shadow gets copies of."),
    ] = None,
    canary: Annotated[
        str | None,
        typer.Option(
            "--canary",
            metavar="P,P,...",
            help="Shares of the traffic that it answers one after the other, such as 0.05,0.25,0.5; none: no canary.",
        ),
    ] = None,
    step_requests: Annotated[
        int | None,
        typer.Option("--step-requests", metavar="N", help="That it answers at each share, at least."),
    ] = None,
    step_s: Annotated[
        float | None, typer.Option("--step-s", metavar="SECONDS", help="How long each share lasts, at least.")
    ] = None,
    false_alarm: Annotated[
        float | None,
        typer.Option(
            "--false-alarm",
            metavar="P",
            help="Probability that a challenger which is as good is rolled back.",
        ),
    ] = None,
    error_margin: Annotated[
        float | None,
        typer.Option(
            "--error-margin",
            metavar="P",
            help="So much larger its share of failed, slow or wrong answers may be.",
        ),
    ] = None,
    latency_ratio: Annotated[
        float | None,
        typer.Option("--latency-ratio", metavar="X", help="So many times as long is slow."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Set how challengers come to serve; what is not given stays. Without options: show it."""
    given = {
        "approval": approval,
        "shadow_requests": shadow_requests,
        "shadow_s": shadow_s,
        "shadow_share": shadow_share,
        "canary": None if canary is None else _shares(canary),
        "step_requests": step_requests,
        "step_s": step_s,
        "false_alarm": false_alarm,
        "error_margin": error_margin,
        "latency_ratio": latency_ratio,
    }
    with answering(as_json) as out:
        av = library(store)
        found = av.deployment(deployment)
        wanted = changed(found.rollout_policy, given)
        if wanted != found.rollout_policy:
            found = av.set_rollout_policy(deployment, wanted)
        out.answer(found.rollout_policy, facts(_policy(found.rollout_policy)))


@app.command()
def gates(
    deployment: DeploymentName,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="X",
            help="So much worse, in the metric's unit, is still equal: on all images, a subgroup or a class.",
        ),
    ] = None,
    max_latency_ms: Annotated[
        str | None,
        typer.Option(
            "--max-latency-ms", metavar="MS", help="Of one image at a time, on this node; none: any."
        ),
    ] = None,
    max_memory_mb: Annotated[
        str | None,
        typer.Option(
            "--max-memory-mb", metavar="MB", help="Of a process that serves it, at most; none: any."
        ),
    ] = None,
    max_size_mb: Annotated[
        str | None,
        typer.Option("--max-size-mb", metavar="MB", help="Of the model's file of weights; none: any."),
    ] = None,
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            metavar="NAME",
            help="That latency and memory are measured on; auto: the one that a server would choose.",
        ),
    ] = None,
    robustness_margin: Annotated[
        str | None,
        typer.Option(
            "--robustness-margin",
            metavar="X",
            help="So much less accuracy on corrupted images is still equal; none: they are not looked at.",
        ),
    ] = None,
    robustness_images: Annotated[
        int | None,
        typer.Option("--robustness-images", metavar="N", help="Held-out images that are corrupted, at most."),
    ] = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Set what challengers must show, and within which limits they must serve; without options: show it.

    What is not given stays. A limit on latency or memory is measured where a promotion is decided: half a minute for
    an architecture that is new to this kind of node.
    """
    given = {
        "margin": margin,
        "max_latency_ms": max_latency_ms,
        "max_memory_mb": max_memory_mb,
        "max_size_mb": max_size_mb,
        "runtime": runtime,
        "robustness_margin": robustness_margin,
        "robustness_images": robustness_images,
    }
    with answering(as_json) as out:
        av = library(store)
        found = av.deployment(deployment)
        wanted = changed(found.gate_policy, given)
        if wanted != found.gate_policy:
            found = av.set_gate_policy(deployment, wanted)
        out.answer(found.gate_policy, facts(_gate_policy(found.gate_policy)))


@app.command()
def advance(deployment: DeploymentName, store: Store = None, as_json: Json = False) -> None:
    """Take the next step of the rollout now, however early it is. One that does harm is rolled back instead."""
    from autovision.errors import InvalidInput

    with answering(as_json) as out:
        decision = library(store).go_on(deployment, at_once=True)
        if decision is None:
            raise InvalidInput(
                f"deployment {deployment!r} has no rollout under way; `autovision promote MODEL --to {deployment}` "
                "begins one, where the policy has steps"
            )
        out.answer(decision, decision_facts(decision))


@app.command()
def approve(
    deployment: DeploymentName,
    model: Waiting,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Let a model begin that waits for a person's approval."""
    with answering(as_json) as out:
        if address is not None:
            with remote.service(out, address, token_file) as client:
                decision = client.approve(deployment, model)
        else:
            decision = library(store).approve(deployment, model)
        out.answer(decision, decision_facts(decision))


@app.command()
def reject(
    deployment: DeploymentName,
    model: Waiting,
    address: Address = None,
    token_file: TokenFile = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Refuse a model that waits for a person's approval."""
    with answering(as_json) as out:
        if address is not None:
            with remote.service(out, address, token_file) as client:
                decision = client.reject(deployment, model)
        else:
            decision = library(store).reject(deployment, model)
        out.answer(decision, decision_facts(decision))


# ---------------------------------------------------------------------------------------------- helpers


def _shares(given: str) -> tuple[float, ...]:
    from autovision.errors import InvalidInput

    if given.strip().lower() in ("", "none"):
        return ()
    try:
        return tuple(float(part) for part in given.split(","))
    except ValueError:
        raise InvalidInput(
            f"--canary {given!r} is not a list of shares; give some between 0 and 1, such as 0.05,0.25,0.5, or none"
        ) from None


def _facts(deployment: Deployment, evidence: Evidence | None) -> Table:
    rollout = deployment.rollout
    shown: dict[str, Any] = {"deployment": deployment.name, "champion": deployment.model or "none yet"}
    if rollout is None or evidence is None:
        return facts({**shown, "rollout": "none"})
    from autovision.promotion.rollout import told
    from autovision.promotion.staging import next_turn
    from autovision.records.base import now

    verdict = next_turn(rollout, evidence, now())
    return facts(
        {
            **shown,
            "challenger": rollout.model,
            "step": f"{rollout.at + 1} of {len(rollout.steps)}: {told(rollout.step)}",
            "since (UTC)": rollout.step_began_at,
            "next": f"{verdict.turn.value}: {verdict.why}",
            "same label": f"{evidence.agreed} of {evidence.compared}" if evidence.compared else None,
            "labels": _labels(evidence),
            "rollout": rollout.id,
        }
    )


def _labels(evidence: Evidence) -> str | None:
    judged = evidence.judged
    parts = []
    if judged.gained + judged.lost:
        parts.append(
            f"only the challenger was right {judged.gained} times, only the champion {judged.lost} times"
        )
    if judged.challenger[0] or judged.stable[0]:
        parts.append(
            f"right are {judged.challenger[1]} of {judged.challenger[0]} answers of the challenger, and "
            f"{judged.stable[1]} of {judged.stable[0]} of the champion"
        )
    return "; ".join(parts) or None


def _arms_table(evidence: Evidence) -> Table:
    from autovision.promotion.staging import quantile_s

    def row(name: str, counts: ArmCounts) -> list[Any]:
        slow = [f"{1e3 * quantile_s(counts, part):.0f}" if counts.answered else None for part in (0.5, 0.99)]
        return [name, counts.answered, counts.failed, *slow]

    return table(
        ["arm", ">answered", ">failed", ">half within ms", ">99 % within ms"],
        [row("champion", evidence.stable), row("challenger", evidence.challenger)],
    )


def _waiting_table(waiting: list[Decision]) -> Table:
    return table(
        ["!waits for approval", "since (UTC)", "why"],
        [[each.subject, each.created_at, text(each.why)] for each in waiting],
    )


def _policy(policy: RolloutPolicy) -> dict[str, Any]:
    from autovision.promotion.rollout import told

    steps = policy.steps()
    least = [f"{told(step)}, for {step.requests} requests and {step.seconds:g} s at least" for step in steps]
    return {
        "approval": policy.approval,
        "steps": "\n".join(least) or "none: a challenger that passes the gates is champion at once",
        "false alarm": policy.false_alarm,
        "error margin": policy.error_margin,
        "latency ratio": policy.latency_ratio,
    }


def _gate_policy(policy: GatePolicy) -> dict[str, Any]:
    limits = {
        "latency": (policy.max_latency_ms, "ms for one image"),
        "memory": (policy.max_memory_mb, "MB"),
        "size": (policy.max_size_mb, "MB of weights"),
    }
    least = policy.robustness_margin
    return {
        "margin": policy.margin,
        **{name: "any" if most is None else f"{most:g} {unit}" for name, (most, unit) in limits.items()},
        "measured on": policy.runtime if policy.measures else None,
        "robustness": "not looked at"
        if least is None
        else f"{least:g} of accuracy, on {policy.robustness_images} corrupted images",
    }


def _evidence_json(evidence: Evidence | None) -> dict[str, Any] | None:
    from dataclasses import asdict

    if evidence is None:
        return None
    return {
        **asdict(evidence),
        "stable": evidence.stable.model_dump(mode="json"),
        "challenger": evidence.challenger.model_dump(mode="json"),
    }
