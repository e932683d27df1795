"""A challenger that was refused for want of evidence, looked at again as labels come in."""

from __future__ import annotations

import hashlib
import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from autovision.controller import Controller
from autovision.dataset import catalog, manifest
from autovision.duplicates import MOST_BITS
from autovision.errors import Conflict
from autovision.promotion import later, refused, rollout
from autovision.promotion.comparison import Comparison
from autovision.promotion.gates.better import better_somewhere
from autovision.promotion.later import SINCE
from autovision.promotion.refused import LEAST, MOST_CANDIDATES, MOST_IMAGES, PATIENCE, Refused
from autovision.records.deployments import Capture, Decision, DecisionKind, Label
from autovision.records.gates import GatePolicy
from autovision.records.rollouts import RolloutPolicy
from autovision.registry import deployments
from autovision.store import MemoryStore, captures, keys, labels
from tests.unit.conftest import CLASSES, draw, paint

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.conftest import History

NOW = datetime(2026, 5, 1, tzinfo=UTC)
POLICY = GatePolicy(robustness_margin=None)


def verdict(model: str | None, *failed: str, at: datetime = NOW, **numbers: Any) -> Decision:
    """Of a comparison with champion `a`, in which these gates failed."""
    gates = [{"name": "not_worse_overall", "passed": True}] + [
        {"name": name, "passed": False} for name in failed
    ]
    return Decision(
        id=keys.timestamped_id(at),
        kind=DecisionKind.PROMOTE,
        deployment="door",
        accepted=not failed,
        what="",
        why="",
        subject=model,
        numbers={"champion": "a", "metric": "accuracy", "gates": gates, **numbers},
        created_at=at,
    )


# -------------------------------------------------------------------------------------------- who is left


def test_a_candidate_failed_by_evidence_alone() -> None:
    lacking = verdict("b", "better_somewhere")
    assert refused.said(lacking) == ("b", Refused("b", "a", NOW, "accuracy"))
    numbers = {"evidence": {"all images": 9}, "levels": {"all images": 0.05}}
    gates = [{"name": "better_somewhere", "passed": False, "numbers": numbers}]
    first = Refused("b", "a", NOW, "accuracy", levels={"all images": [(9, 0.05)]})
    assert refused.said(verdict("b", "better_somewhere", gates=gates)) == ("b", first)
    levels = {"all images": [[9, 0.03], [30, 0.02]]}  # as JSON has them
    again = verdict("b", "better_since", later={"champion": "a", "look": 1, "labelled": 70, "levels": levels})
    kept = {"all images": [(9, 0.03), (30, 0.02)]}
    assert refused.said(again) == ("b", Refused("b", "a", NOW, "accuracy", 1, 70, kept))
    for closed in (
        verdict("b"),
        verdict("b", "better_somewhere", "no_forgetting[ok]"),
        verdict("b", "no_forgetting[ok]"),
        verdict("b", "better_somewhere", champion=None),
        verdict("b", "better_somewhere", gates=[]),
        # Of a rule that kept no account of what its looks had spent.
        verdict("b", "better_since", later={"champion": "a", "look": 1, "labelled": 70}),
    ):
        assert refused.said(closed) == ("b", None)
    several = verdict("b", "better_since", "no_forgetting[ok]", later=again.numbers["later"])
    assert refused.said(several)[1] == Refused("b", "a", NOW, "accuracy", 1, 70, kept, closed=True)
    assert refused.candidates([refused.said(several)], "a", NOW) == []
    retrained = lacking.with_(kind=DecisionKind.RETRAIN)
    assert refused.said(retrained) == (None, None)


def test_the_last_word_counts_and_the_newest_few_of_this_champion_are_left() -> None:
    told = [refused.said(verdict(name, "better_somewhere")) for name in "xbcdeg"]
    told += [refused.said(verdict("f")), (None, None), refused.said(verdict("k", "better_somewhere"))]
    told.append(refused.said(verdict("h", "better_somewhere", champion="z")))
    told.append(refused.said(verdict("i", "better_somewhere", at=NOW - PATIENCE - timedelta(days=1))))
    told.append(("j", Refused("j", "a", NOW, "accuracy", 20, MOST_IMAGES)))
    found = refused.candidates(told, "a", NOW)
    assert [each.model for each in found] == ["k", "g", "e", "d", "c", "b"][:MOST_CANDIDATES]
    assert refused.candidates(told, "b", NOW) == []


def test_what_looks_have_spent_stays_spent_when_somebody_asks_for_a_comparison_anew() -> None:
    levels = {"all images": [[9, 0.03], [30, 0.02]]}
    later_look = verdict(
        "b", "better_since", later={"champion": "a", "look": 1, "labelled": 70, "levels": levels}
    )
    of_another = verdict("b", "better_somewhere", champion="z")
    told = [refused.said(each) for each in (later_look, of_another, verdict("b", "better_somewhere"))]
    (found,) = refused.candidates(told, "a", NOW)
    assert (found.looks, found.labelled, len(found.levels["all images"])) == (1, 70, 2)


def test_a_look_is_due_at_first_enough_and_then_with_a_third_more() -> None:
    case = Refused("b", "a", NOW, "accuracy")
    assert [refused.due(case, n) for n in (LEAST - 1, LEAST)] == [False, True]
    again = Refused("b", "a", NOW, "accuracy", 1, 40)
    assert [refused.due(again, n) for n in (51, 52)] == [False, True]


# ------------------------------------------------------------------------------------------------- judging


def test_all_images_together_decide_who_is_better_and_who_is_worse(paired: Any) -> None:
    case = Refused("b", "a", NOW, "accuracy")
    first = Comparison(paired(200, 4, 3))
    better = later.judge(first, paired(60, 8, 0, seed=1), case, 60, POLICY)
    assert better.accepted and better.numbers["n"] == 260
    told = better.numbers["later"]
    assert {**told, "levels": 0} == {"champion": "a", "look": 1, "labelled": 60, "n": 60, "levels": 0}
    evidence = {part: [count for count, _ in looks] for part, looks in told["levels"].items()}
    assert evidence == {"all images": [7, 15], SINCE: [8]}
    gates = [gate["name"] for gate in better.numbers["gates"]]
    assert gates[0] == "better_since" and "better_somewhere" not in gates
    same = later.judge(first, paired(60, 3, 3, seed=1), case, 60, POLICY)
    failed = [gate["name"] for gate in same.numbers["gates"] if not gate["passed"]]
    assert failed == ["better_since"]
    worse = later.judge(Comparison(paired(400, 2, 30)), paired(60, 8, 0, seed=1), case, 60, POLICY)
    assert not worse.accepted and "not_worse_overall" in worse.why


def test_what_the_test_split_shows_already_counts(paired: Any) -> None:
    """5 of 5 lack evidence on the test split, and 4 of 4 later: neither alone is enough."""
    case, first = Refused("b", "a", NOW, "accuracy"), paired(200, 4, 0)
    assert not better_somewhere(first).passed and not better_somewhere(paired(60, 4, 0, seed=1)).passed
    assert later.judge(Comparison(first), paired(60, 4, 0, seed=1), case, 60, POLICY).accepted


def test_much_of_old_kinds_does_not_hide_what_the_later_images_show(paired: Any) -> None:
    first, since = Comparison(paired(2000, 150, 150)), paired(60, 30, 0, seed=1)
    case = Refused("b", "a", NOW, "accuracy")
    assert not better_somewhere(later.together(first.paired, since)).passed
    found = later.judge(first, since, case, 60, POLICY)
    assert found.accepted and f"on {SINCE}" in found.why


def test_a_look_is_the_stricter_the_more_there_were_before(paired: Any) -> None:
    first, case = Comparison(paired(200, 6, 5)), Refused("b", "a", NOW, "accuracy")
    for n in (30, 39, 51, 67):
        said = later.judge(first, paired(n, n // 10, n // 10, seed=n), case, n, POLICY)
        decision = verdict("b", "better_since", later=said.numbers["later"])
        left = refused.said(decision)[1]
        assert left is not None and (left.looks, left.labelled) == (case.looks + 1, n)
        case = left
    levels = [level for _, level in case.levels["all images"]]
    assert len(levels) == 5 and all(0 < level < 0.05 for level in levels[1:])
    since = paired(670, 110, 10, seed=9)
    account = case.levels
    asked = [
        later.better(first.paired, since, "accuracy", levels, 5).numbers["level"]
        for levels in ({"all images": account["all images"][:1]}, account)
    ]
    assert asked[1] < asked[0]


def test_a_part_that_the_test_split_has_little_of_is_looked_at_by_itself(paired: Any) -> None:
    group = np.arange(200) < 12
    first = paired(200, 0, 0, groups={"poly": group})
    since = paired(60, 14, 0, seed=1, groups={"poly": np.ones(60, bool)})
    said = later.judge(Comparison(first), since, Refused("b", "a", NOW, "accuracy"), 60, POLICY)
    assert said.accepted
    assert {part: len(looks) for part, looks in said.numbers["later"]["levels"].items()} == {
        "all images": 2,
        "poly": 2,
        SINCE: 1,
    }


@pytest.mark.parametrize("metric", ["auroc", "log_loss"])
def test_other_metrics_are_looked_at_by_all_their_images(paired: Any, metric: str) -> None:
    metric = {"log_loss": "neg_log_loss"}.get(metric, metric)
    first, case = Comparison(paired(200, 6, 5)), Refused("b", "a", NOW, metric)
    said = later.judge(first, paired(60, 2, 2, seed=1), case, 60, POLICY)
    assert [evidence for evidence, _ in said.numbers["later"]["levels"]["all images"]] == [200, 260]
    assert later.judge(first, paired(60, 30, 0, seed=1), case, 60, POLICY).accepted


def test_without_images_of_use_the_verdict_is_no(paired: Any) -> None:
    case = Refused("b", "a", NOW, "accuracy")
    found = later.judge(Comparison(paired(200, 4, 3)), None, case, 31, POLICY)
    assert not found.accepted and found.numbers["later"]["n"] == 0
    assert "hardly any" in found.why
    assert [evidence for evidence, _ in found.numbers["later"]["levels"]["all images"]] == [7], (
        "nothing is spent"
    )


# ------------------------------------------------------------------------------------------------ as an act


@pytest.fixture
def store(tiny: History) -> MemoryStore:
    """The first model serves; the second one, which knows shifted images, was not shown to be better."""
    store = tiny.copy()
    deployments.create(store, "door", "colours", tiny.space.to_json())
    deployments.set_champion(store, "door", tiny.models[0].id, expected=None)
    deployments.set_gate_policy(store, "door", POLICY)
    decision = verdict(tiny.models[1].id, "better_somewhere", champion=tiny.models[0].id)
    deployments.record_verdict(store, deployments.get(store, "door"), decision)
    return store


def captured(tiny: History, data: bytes, at: datetime) -> Capture:
    """A request that the first model answered."""
    digest = hashlib.sha256(data).hexdigest()
    return Capture(
        request_id=keys.derived_id(at, digest),
        deployment="door",
        model=tiny.models[0].id,
        received_at=at,
        latency_ms=1.0,
        image=digest,
        image_bytes=len(data),
        label=CLASSES[0],
        probabilities=dict.fromkeys(CLASSES, 0.5),
        embedding=(0.0,),
    )


def send(
    store: MemoryStore, tiny: History, folder: Path, n: int, *, shifted: bool = True, review: bool = False
) -> list[Capture]:
    """Labelled requests after the second model's data was fixed."""
    begin = catalog.get(store, "colours@2").created_at + timedelta(hours=1)
    seed = 50 + len(list(store.list(keys.captures("door"))))
    sent = []
    for number, path in enumerate(paint(folder / str(seed), n // 2, seed=seed, shifted=shifted)):
        data, at = path.read_bytes(), begin + timedelta(seconds=1000 * seed + number)
        capture = captured(tiny, data, at)
        store.put_immutable(captures.image_key(capture), data)
        said = Label(request_id=capture.request_id, label=path.parent.name, received_at=at, review=review)
        labels.add(store, "door", said)
        sent.append(capture)
    captures.append(store, "door", sent, at=sent[-1].received_at)
    return sent


def look(store: MemoryStore) -> Decision | None:
    deployment = deployments.get(store, "door")
    assert deployment.model is not None
    told = [refused.said(each) for each in deployments.decisions(store, "door")]
    cases = refused.candidates(told, deployment.model, NOW)
    words = labels.count(store, "door")
    at = NOW + timedelta(minutes=len(told))
    for case in cases:
        if (decision := rollout.look_again(store, "door", case, words, clock=lambda: at)) is not None:
            return decision
    return None


def test_a_better_challenger_takes_over_once_enough_is_labelled(
    store: MemoryStore, tiny: History, tmp_path: Path
) -> None:
    assert look(store) is None
    send(store, tiny, tmp_path, LEAST - 2)
    assert look(store) is None, "too few"
    send(store, tiny, tmp_path, 12)
    decision = look(store)
    assert decision is not None and decision.accepted, decision
    assert decision.numbers["later"]["n"] == LEAST + 10
    assert deployments.get(store, "door").model == tiny.models[1].id
    assert look(store) is None, "it is champion"


def test_one_that_is_no_better_is_looked_at_when_there_is_more(
    store: MemoryStore, tiny: History, tmp_path: Path
) -> None:
    champion = tiny.models[0].id
    deployments.set_champion(store, "door", tiny.models[1].id, expected=champion)
    decision = verdict(champion, "better_somewhere", champion=tiny.models[1].id)
    deployments.record_verdict(store, deployments.get(store, "door"), decision)
    send(store, tiny, tmp_path, LEAST, shifted=False)
    decision = look(store)
    assert decision is not None and not decision.accepted
    assert decision.numbers["later"]["labelled"] == LEAST
    assert look(store) is None, "nothing came since"
    send(store, tiny, tmp_path, LEAST // 2, shifted=False)
    again = look(store)
    assert again is not None and again.numbers["later"]["look"] == 2
    spent = [len(looks) for looks in again.numbers["later"]["levels"].values()]
    assert spent == [3, 2], "the test split, and two looks"


def test_what_was_learnt_from_or_asked_for_by_a_review_or_sent_twice_is_no_evidence(
    store: MemoryStore, tiny: History, tmp_path: Path
) -> None:
    champion, challenger = tiny.models
    deployment = deployments.get(store, "door")
    send(store, tiny, tmp_path, 10, review=True)
    assert later.gather(store, deployment, challenger, champion) == []
    own = send(store, tiny, tmp_path, 4)
    again = [
        each.model_copy(update={"request_id": keys.derived_id(NOW + timedelta(days=9000), each.image)})
        for each in own
    ]
    captures.append(store, "door", again, at=own[-1].received_at)
    for each in again:
        store.put_immutable(captures.image_key(each), captures.read_image(store, own[0]))
        labels.add(store, "door", Label(request_id=each.request_id, label="red", received_at=NOW))
    assert len(later.gather(store, deployment, challenger, champion)) == 4
    known = tmp_path / "known.png"
    draw(0, 10_000 + 0, shifted=True).save(known)  # the first shifted one of the data set's second version
    digest = hashlib.sha256(known.read_bytes()).hexdigest()
    assert digest in {row.image for row in manifest.read(store, tiny.versions[1])}
    learnt = own[0].model_copy(
        update={"request_id": keys.derived_id(NOW + timedelta(days=8000), digest), "image": digest}
    )
    captures.append(store, "door", [learnt], at=own[-1].received_at)
    labels.add(store, "door", Label(request_id=learnt.request_id, label="red", received_at=NOW))
    assert len(later.gather(store, deployment, challenger, champion)) == 4


def test_labels_are_gone_through_again_only_when_there_may_be_enough_of_them(
    store: MemoryStore, tiny: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gathered, short = [], {}
    real = later.gather
    monkeypatch.setattr(later, "gather", lambda *args: gathered.append(1) or real(*args))
    told = [refused.said(each) for each in deployments.decisions(store, "door")]
    (case,) = refused.candidates(told, tiny.models[0].id, NOW)

    def turn(at: datetime) -> Decision | None:
        words = labels.count(store, "door")
        return rollout.look_again(store, "door", case, words, short=short, clock=lambda: at)

    send(store, tiny, tmp_path, LEAST - 10)
    assert turn(NOW) is None and turn(NOW + timedelta(hours=1)) is None and len(gathered) == 1
    assert next(iter(short.values())).missing == 10
    send(store, tiny, tmp_path, 8)
    assert turn(NOW + timedelta(hours=2)) is None and len(gathered) == 1, "two are missing"
    assert turn(NOW + timedelta(hours=25)) is None and len(gathered) == 2, "a capture may have come late"
    send(store, tiny, tmp_path, 2)
    assert turn(NOW + timedelta(hours=26)) is not None and len(gathered) == 3


def test_a_look_whose_reason_is_out_of_date_is_refused(
    store: MemoryStore, tiny: History, tmp_path: Path
) -> None:
    send(store, tiny, tmp_path, LEAST + 10)
    deployment = deployments.get(store, "door")
    (case,) = refused.candidates(
        [refused.said(deployments.decisions(store, "door")[-1])], tiny.models[0].id, NOW
    )
    deployments.set_rollout_policy(store, "door", RolloutPolicy(approval="both"))
    with pytest.raises(Conflict, match="changed before"):
        rollout.look_again(store, "door", case, 40, revision=deployment.revision, clock=lambda: NOW)


@pytest.mark.parametrize("seed", range(4))
def test_of_images_that_are_nearly_the_same_the_first_one_stays_when_another_comes(
    store: MemoryStore, tiny: History, seed: int
) -> None:
    """Whichever has the smaller digest: what was counted at one look is counted at the next."""
    pixels = np.random.default_rng(seed).integers(40, 200, (16, 16, 3), dtype=np.uint8)
    found = []
    for number, more in enumerate((0, 8)):
        sink, at = io.BytesIO(), NOW + timedelta(minutes=number)
        Image.fromarray(pixels + np.uint8(more)).resize((64, 64)).save(sink, "PNG")
        capture = captured(tiny, sink.getvalue(), at)
        store.put_immutable(captures.image_key(capture), sink.getvalue())
        found.append(later.Labelled(capture, "red"))
    kept = later._unlike(store, [], MOST_BITS, found)
    assert [each for each, _ in kept] == found[:1]


def test_approval_is_asked_for_and_stands(store: MemoryStore, tiny: History, tmp_path: Path) -> None:
    deployments.set_rollout_policy(store, "door", RolloutPolicy(approval="both"))
    send(store, tiny, tmp_path, LEAST + 10)
    waits = look(store)
    assert waits is not None and not waits.accepted and waits.numbers["waits"]
    assert look(store) is None, "it waits for a person"
    decision = rollout.approve(
        store, "door", tiny.models[1].id, person="ann", clock=lambda: NOW + timedelta(days=1)
    )
    assert decision.accepted and not decision.numbers["overruled"]
    assert deployments.get(store, "door").model == tiny.models[1].id


def test_the_controller_looks_again_by_itself_and_not_in_every_pass(
    store: MemoryStore, tiny: History, tmp_path: Path
) -> None:
    at = [catalog.get(store, "colours@2").created_at + timedelta(days=30)]

    def clock() -> datetime:
        at[0] += timedelta(milliseconds=1)
        return at[0]

    second = tiny.models[1].id
    patient = deployments.decisions(store, "door")[-1].with_(id=keys.timestamped_id(at[0]), created_at=at[0])
    deployments.record_verdict(store, deployments.get(store, "door"), patient)
    controller = Controller(store, clock=clock)
    for _ in range(3):
        list(controller.step_without_search())
    send(store, tiny, tmp_path, LEAST + 10)
    list(controller.step_without_search())
    assert deployments.get(store, "door").model != second, "it looked a moment ago"
    at[0] += timedelta(minutes=11)
    events = list(controller.step_without_search())
    assert second in [event.record.subject for event in events if isinstance(event.record, Decision)]
    assert deployments.get(store, "door").model == second
