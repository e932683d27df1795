"""What of a ledger becomes the model: the best trial, or a soup of it and others, trained again on more images or not.

Written down once (`FinishRecord`), because it depends on the clock: whoever finishes the same ledger again reads it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from safetensors.torch import load as load_tensors

from autovision.errors import AutoVisionError
from autovision.features.compute import OutOfTime
from autovision.metrics import Floats
from autovision.model import bundle
from autovision.records.base import digest_of, now
from autovision.records.models import Candidate, FinishRecord, Refit
from autovision.records.searches import SearchRequest
from autovision.records.trials import TrialResult
from autovision.search.costing.cost import CostModel
from autovision.search.finishing import refit as again
from autovision.search.finishing import soup
from autovision.search.finishing.candidates import compare
from autovision.search.finishing.confirm import Confirmed, confirm
from autovision.search.finishing.court import Court, court_of
from autovision.search.finishing.robust import usual_loss
from autovision.search.select import best_trial, rank
from autovision.space.config import TrialConfig
from autovision.store import keys, records
from autovision.store.protocol import KeyNotFound, Store
from autovision.trial.folds import kinds_of
from autovision.trial.tasting import Tasting
from autovision.trial.trial import weights_key
from autovision.trial.workbench import Workbench

_SCREEN_SHARE = 0.2
"""of the time that a refit leaves, which judging the best trials beside the champion may take"""
_LOOK_SHARE = 0.6
"""of the same, by which to have looked at what corruptions leave of them: two passes of a backbone at most, mostly"""
_SCREENED = 24
"""trials of a re-search, the best on validation, of which any may be the best that the gates let pass"""
_CONFIRM_SHARE = 0.8
"""of the time that a refit leaves, which judging the best once more may take"""
_SOUP_SHARE = 0.25
"""of the time that is left, which choosing a soup may take; in a re-search of what a refit leaves"""


def choose(
    store: Store,
    request: SearchRequest,
    ledger: Sequence[TrialResult],
    bench: Workbench,
    cost: CostModel,
    deadline: float,
    *,
    beside_champion: bool = True,
) -> FinishRecord:
    """What this ledger comes to, as it was decided the first time.

    Args:
        beside_champion: compare it with the champion, if there is one.
        ledger: with a trial that left weights.
        deadline: seconds since the epoch, by which a refit must be over. One that is predicted to take longer is
            not begun, and one that takes longer, or comes to nothing, is left.
    """
    weighed = sorted([r.trial, r.value, r.weights_key] for r in ledger if r.weights_key is not None)
    compares = beside_champion and request.parent_model is not None
    digest = digest_of([weighed, "beside the champion"] if compares else weighed)
    key = keys.finish(request.id, digest)
    try:
        return records.read(store, key, FinishRecord)
    except KeyNotFound:
        pass
    best = best_trial(ledger)
    assert best is not None
    asked_by = deadline - _refit_s(request, best, cost)
    court = court_of(bench, request, asked_by, beside_champion=beside_champion, cost=cost)
    confirmed = _confirmed(court, best, ledger, cost, deadline)
    kept_s = 0.0 if court.champion is None else _refit_s(request, confirmed.best, cost)
    members, chosen_key, notes = _soup(court, confirmed.best, ledger, deadline - kept_s)
    final_key, refitted, refit_notes = _refit(store, request, members, chosen_key, bench, cost, deadline)
    compared = None
    if compares:
        config, origin = TrialConfig.model_validate(members[0].config), members[0].origin
        kind: Candidate = "from_champion" if origin == "champion" else "trained"
        compared = compare(court, config, chosen_key, kind, deadline)
    candidate = compared.best if compared is not None else "trained"
    if candidate in ("unchanged", "recalibrated"):
        final_key, refitted, refit_notes = None, None, ()
    if compared is not None and compared.recalibrated is not None:
        chosen_key, final_key = compared.recalibrated.chosen_key, compared.recalibrated.final_key
        refitted = compared.recalibrated.refit
    doubt = compared.note if compared is not None else None
    said = (confirmed.note, *notes, doubt, *refit_notes)
    record = FinishRecord(
        search=request.id,
        ledger=digest,
        trials=tuple(member.trial for member in members),
        chosen_key=chosen_key,
        final_key=final_key or chosen_key,
        refit=refitted,
        confirmed=confirmed.judged,
        candidate=candidate,
        candidates=compared.candidates if compared is not None else (),
        notes=tuple(note for note in said if note),
        created_at=now(),
    )
    return records.create_or_read(store, key, record)[0]


def _refit_s(request: SearchRequest, best: TrialResult, cost: CostModel) -> float:
    return again.predicted_s(cost, request, [best]) if request.refit else 0.0


def _confirmed(
    court: Court, best: TrialResult, ledger: Sequence[TrialResult], cost: CostModel, deadline: float
) -> Confirmed:
    request, expected = court.request, None
    if court.champion is not None:
        left_s = deadline - time.time() - _refit_s(request, best, cost)
        began = time.time()
        expected = screened(court, ledger, began + _SCREEN_SHARE * left_s, began + _LOOK_SHARE * left_s)
        ledger = [result for result in ledger if result.trial in expected]
        best = min(ledger, key=lambda result: (-expected[result.trial], *rank(result)))
    if not request.confirm:
        return Confirmed(best)
    left_s = max(0.0, _CONFIRM_SHARE * (deadline - time.time() - _refit_s(request, best, cost)))
    return confirm(court, best, ledger, cost.head_s, time.time() + left_s, left_s, expected)


def screened(
    court: Court, ledger: Sequence[TrialResult], deadline: float, looked_by: float
) -> dict[str, float]:
    """What is expected of offering the best trials, by validation; of the very best in any case.

    What corruptions leave of a trial can only lower that. So it is looked at of the one that is the best so far, until
    the best is one of which it is known.

    Args:
        deadline: seconds since the epoch.
        looked_by: the same, of looking at what corruptions leave.
    """
    split, judge = court.splits.validation, court.validation
    usable = sorted((r for r in ledger if r.value is not None and r.weights_key is not None), key=rank)
    said: dict[str, tuple[str, TrialConfig, Floats]] = {}
    found: dict[str, float] = {}
    for result in usable[:_SCREENED]:
        if found and time.time() >= deadline:
            break
        key, config = result.weights_key or "", TrialConfig.model_validate(result.config)
        tensors = load_tensors(court.bench.store.get(key).data)
        try:
            tasting = Tasting(court.bench, split, config, deadline=deadline if found else math.inf)
        except OutOfTime:
            break
        said[result.trial] = key, config, court.probabilities(tasting.logits(tensors))
        found[result.trial] = judge.worth(said[result.trial][2]).expected
    clean, known = dict(found), set[str]()
    while (best := max(found, key=found.__getitem__)) not in known:
        key, config, p = said[best]
        more = court.chances(key, config, looked_by)
        if not more:
            # There is no time for it: corruptions are taken to leave as much of it as of those that were looked at.
            lost = usual_loss([clean[trial] - found[trial] for trial in known])
            return {trial: value if trial in known else value - lost for trial, value in found.items()}
        known.add(best)
        found[best] = judge.worth(p, more=more).expected
    return found


def _soup(
    court: Court, best: TrialResult, ledger: Sequence[TrialResult], deadline: float
) -> tuple[list[TrialResult], str, tuple[str, ...]]:
    """The trials to average, the best first; the key of their average; and how it came to that."""
    assert best.weights_key is not None
    request, store, split = court.request, court.bench.store, court.splits.validation
    if not request.soup:
        return [best], best.weights_key, ()
    found = soup.candidates(best, ledger)
    if len(found) < 2:
        return [best], best.weights_key, ()
    tensors = [load_tensors(store.get(each.weights_key or "").data) for each in found]
    kitchen = soup.Kitchen(
        tensors,
        Tasting(court.bench, split, TrialConfig.model_validate(best.config)).logits,
        soup.scorer(court.validation, court.probabilities),
    )
    until = time.time() + _SOUP_SHARE * (deadline - time.time())
    chosen = soup.cook(kitchen, kinds_of(split.truth), groups=split.groups, seed=request.seed, deadline=until)
    if len(chosen.members) < 2:
        return [best], best.weights_key, (chosen.why,)
    data = bundle.tensors_file(soup.averaged([tensors[i] for i in chosen.members]))
    made = weights_key(request.id, "soup", data)
    store.put_immutable(made, data)
    return [found[i] for i in chosen.members], made, (chosen.why,)


def _refit(
    store: Store,
    request: SearchRequest,
    members: Sequence[TrialResult],
    chosen_key: str,
    bench: Workbench,
    cost: CostModel,
    deadline: float,
) -> tuple[str | None, Refit | None, tuple[str, ...]]:
    """Key and facts of what was trained again, both None if nothing was; and a note why not."""
    if not request.refit:
        return None, None, ()
    left, needed = deadline - time.time(), again.predicted_s(cost, request, members)
    if needed > left:
        return (
            None,
            None,
            (f"no refit: it would take about {needed:.0f} s, and {max(left, 0.0):.0f} s are left",),
        )
    trained, images = [], 0
    for member in members:
        try:
            data, images = again.refit(bench, request, member, deadline=deadline)
        except AutoVisionError as error:
            return None, None, (f"no refit: {error}",)
        trained.append(load_tensors(data))
    data = bundle.tensors_file(soup.averaged(trained))
    made = weights_key(request.id, "refit", data)
    store.put_immutable(made, data)
    epochs = {member.trial: again.epochs_of(member, request.metric) for member in members}
    return made, Refit(images=images, epochs=epochs, before_key=chosen_key), ()
