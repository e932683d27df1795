"""A first answer while labels are missing: the champion, put right for what production seems to send now.

decide   whether an unlabelled estimate says that other class shares help: a pure function
consider look at the latest requests, decide, and make a challenger of it where it helps; the gates have the last word
answer   the same for an alarm of the monitor, once

Where only the shares of the classes have moved, these are put right. If anything else has, such as what the images of a
class look like, other statistics of BatchNorm are tried (`renormalization`). Where no estimate says that it helps,
nothing is made: then labels are needed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import torch
from safetensors.torch import load as load_tensors

from autovision.dataset import catalog
from autovision.errors import InvalidInput
from autovision.model import bundle
from autovision.model.version import read_file, read_version
from autovision.priors import ShiftEstimate, estimate
from autovision.records.base import digest_of, now
from autovision.records.datasets import Split
from autovision.records.deployments import Capture, Decision, DecisionKind, DriftReport, Verdict
from autovision.records.models import ModelVersion
from autovision.registry import deployments
from autovision.registry.evaluate import Predictions, evaluate_subgroups, predictions, store_predictions
from autovision.retraining import renormalization
from autovision.store import captures, keys
from autovision.store.protocol import Store

TRIAL = "shares"
"""stands for a trial in the lineage of a model that is its parent with other class shares"""
_BIAS = "head.out.bias"
_MOST = 500
"""of the latest requests are looked at"""
_LEAST_OF_CLASS = 10
"""held-out images of each class"""
_SURE_SAME, _SURE_OTHER = 0.01, 0.05
_TOLD = 5
"""classes whose shares are told, those that moved most"""
_LEAVE = "leave the probabilities as they are"


@dataclass(frozen=True)
class Considered:
    """What came of it: the decision, which is stored, and the challenger if there is one."""

    decision: Decision
    model: ModelVersion | None


def decide(found: ShiftEstimate, classes: Sequence[str]) -> Verdict:
    """Accept where shares have moved (1 %), nothing else seems to have (5 %), and accuracy is sure to gain (95 %).

    Args:
        classes: (C,) their names.
    """
    moved = _moved(found, classes)
    numbers = {
        "classes": list(classes),
        "before": found.before.tolist(),
        "after": found.after.tolist(),
        "p_same": found.p_same,
        "p_only_shares": found.p_only_shares,
        "gain": found.gain,
        "gain_low": found.gain_low,
    }
    gain = f"expected gain of accuracy {found.gain:+.3f}, at least {found.gain_low:+.3f} with 95 % confidence"
    if found.p_only_shares <= _SURE_OTHER:
        why = (
            f"more than the shares of the classes has changed (p = {found.p_only_shares:.2g} if only they had): "
            "shares alone do not put the probabilities right"
        )
    elif found.p_same > _SURE_SAME:
        why = f"the shares of the classes may be what they were (p = {found.p_same:.2g}): {moved} by the estimate"
    elif not found.gain_low > 0:
        why = f"the shares of the classes went from {moved}, but that changes too few answers: {gain}"
    else:
        why = f"the shares of the classes went from {moved}: {gain}"
        return Verdict(accepted=True, what="adapt to other class shares", why=why, numbers=numbers)
    return Verdict(accepted=False, what=_LEAVE, why=why, numbers=numbers)


def _moved(found: ShiftEstimate, classes: Sequence[str]) -> str:
    """Each class's share before and after, of many classes those that moved most."""
    order = np.argsort(-np.abs(found.after - found.before), kind="stable")[:_TOLD]
    told = ", ".join(f"{classes[i]} {found.before[i]:.3f} to {found.after[i]:.3f}" for i in sorted(order))
    return told if len(classes) <= _TOLD else f"{told}, and {len(classes) - _TOLD} that moved less"


def consider(
    store: Store,
    name: str,
    *,
    since: datetime | None = None,
    report: str | None = None,
    seed: int = 0,
    clock: Callable[[], datetime] = now,
) -> Considered:
    """Decide by the latest requests that a deployment's champion answered, and make the challenger if it helps.

    Args:
        since: look at requests from then on.
        report: id of the drift report that is answered so.

    Raises:
        InvalidInput: there is no champion, it was adapted before, it answers any number of classes, or there are too
            few requests or held-out images.
    """
    deployment = deployments.get(store, name)
    if deployment.model is None:
        raise InvalidInput(f"deployment {name!r} has no model to adapt; promote one first")
    champion = read_version(store, deployment.model)
    if champion.shares or champion.renormalized:
        raise InvalidInput(
            f"model {champion.id!r} was adapted without labels already; label some requests, or go back with "
            f"`autovision rollback {name}`"
        )
    if champion.multi_label:
        raise InvalidInput(
            f"model {champion.id!r} answers any number of classes, and cannot be adapted without labels; label some "
            "requests"
        )
    seen = _latest(store, name, champion.id, since)
    if len(seen) < deployment.policy.window:
        raise InvalidInput(
            f"model {champion.id!r} has answered {len(seen)} captured requests, and {deployment.policy.window} are "
            "needed to tell what has changed; wait for more"
        )
    version = catalog.get(store, champion.lineage.dataset)
    held_out = predictions(store, champion.id, version, Split.TEST)
    counts = np.bincount(held_out.labels, minlength=len(champion.classes))
    if counts.min() < _LEAST_OF_CLASS:
        rare = champion.classes[int(counts.argmin())]
        raise InvalidInput(
            f"{version.id} holds out {counts.min()} images of the class {rare!r}, and {_LEAST_OF_CLASS} are needed; "
            "import more of them"
        )
    said = np.array([[capture.probabilities[name] for name in champion.classes] for capture in seen])
    found = estimate(said, held_out.probabilities, held_out.labels, seed=seed)
    verdict, model = decide(found, champion.classes), None
    numbers = {**verdict.numbers, "requests": len(seen), "champion": champion.id, "report": report}
    if verdict.accepted:
        network = load_tensors(read_file(store, champion, bundle.WEIGHTS_FILE))
        if _BIAS in network:
            model = _made(store, champion, network, found, held_out, verdict, clock)
        else:
            verdict = verdict.with_(
                accepted=False, what=_LEAVE, why=f"{verdict.why}; but its head has no bias to shift"
            )
    elif found.p_only_shares <= _SURE_OTHER:
        tried = renormalization.attempt(store, champion, seen, held_out, deployment.policy.window, seed=seed)
        if tried is None:
            verdict = verdict.with_(why=f"{verdict.why}; labels are needed")
        else:
            numbers["batchnorm"] = tried.verdict.numbers
            verdict = tried.verdict.with_(why=f"{verdict.why}; {tried.verdict.why}")
        if tried is not None and tried.verdict.accepted:
            note = f"{verdict.what}: {tried.verdict.why}"
            model = renormalization.make(store, champion, tried.network, held_out, note, clock)
    decision = _recorded(store, name, verdict.with_(numbers=numbers), model, clock())
    return Considered(decision, model)


def answer(
    store: Store, name: str, report: DriftReport, *, seed: int, clock: Callable[[], datetime]
) -> Decision:
    """What was decided on an alarm, once: by the requests from its window on. The same however often it is asked."""
    before = [
        each
        for each in deployments.decisions(store, name)
        if each.kind is DecisionKind.ADAPT and each.numbers.get("report") == report.id
    ]
    if before:
        return before[-1]
    try:
        return consider(
            store, name, since=report.window_start, report=report.id, seed=seed, clock=clock
        ).decision
    except InvalidInput as error:
        verdict = Verdict(accepted=False, what=_LEAVE, why=str(error), numbers={"report": report.id})
        return _recorded(store, name, verdict, None, clock())


def _latest(store: Store, name: str, model: str, since: datetime | None) -> list[Capture]:
    """The latest requests that a model answered, each once, the oldest first."""
    found: dict[str, Capture] = {}
    for key in reversed(list(captures.files(store, name))):
        with suppress(captures.Unreadable):
            for capture in captures.read_file(store, key):
                if capture.model == model and (since is None or capture.received_at >= since):
                    found[capture.request_id] = capture
        if len(found) >= _MOST:
            break
    return sorted(found.values(), key=lambda each: (each.received_at, each.request_id))[-_MOST:]


def _recorded(
    store: Store, name: str, verdict: Verdict, model: ModelVersion | None, at: datetime
) -> Decision:
    decision = Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.ADAPT,
        deployment=name,
        subject=None if model is None else model.id,
        created_at=at,
        **dict(verdict),
    )
    deployments.record_decision(store, decision)
    return decision


def _made(
    store: Store,
    champion: ModelVersion,
    network: dict[str, torch.Tensor],
    found: ShiftEstimate,
    held_out: Predictions,
    verdict: Verdict,
    clock: Callable[[], datetime],
) -> ModelVersion:
    """The champion whose logits are shifted by the temperature times the log of how the shares changed."""
    log_ratio = np.log(found.after / found.before)
    shift = torch.from_numpy(champion.temperature * (log_ratio - log_ratio.mean()))

    def shifted(tensors: dict[str, torch.Tensor]) -> bytes:
        return bundle.tensors_file({**tensors, _BIAS: tensors[_BIAS] + shift.to(tensors[_BIAS].dtype)})

    files = {
        bundle.WEIGHTS_FILE: shifted(network),
        # The embedding is what the head reads: it is as it was.
        bundle.REFERENCE_FILE: read_file(store, champion, bundle.REFERENCE_FILE),
    }
    refit = champion.lineage.refit
    if refit is not None:
        before = shifted(dict(load_tensors(store.get(refit.before_key).data)))
        key = keys.trial_weights(champion.lineage.search, TRIAL, hashlib.sha256(before).hexdigest()[:16])
        store.put_immutable(key, before)
        refit = refit.with_(before_key=key)
    lineage = champion.lineage.with_(
        trial=TRIAL, parents=(champion.id,), refit=refit, notes=(f"{verdict.what}: {verdict.why}",)
    )
    version = catalog.get(store, champion.lineage.dataset)
    weighed = held_out.probabilities * np.exp(log_ratio)
    said = Predictions(
        held_out.images,
        held_out.labels,
        weighed / weighed.sum(1, keepdims=True),
        held_out.metadata,
        champion.decision,
        held_out.together,
    )
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    made_of = [digests, lineage.model_dump(mode="json")]
    model = champion.with_(
        id=f"{champion.dataset}-m-{digest_of(made_of)[:10]}",
        shares=dict(zip(champion.classes, found.after.tolist(), strict=True)),
        metrics=evaluate_subgroups(
            said, champion.classes, champion.positive_class, dataset=version.id, split=Split.TEST
        ),
        files=digests,
        lineage=lineage,
        created_at=clock(),
    )
    assert math.isclose(sum(model.shares.values()), 1.0, abs_tol=1e-6)
    store_predictions(store, model.id, version, Split.TEST, said)
    bundle.publish(store, model, files)
    return read_version(store, model.id)
