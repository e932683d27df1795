"""Any history becomes a page that stands alone, is well-formed and cannot be injected into."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from autovision.records.deployments import (
    AccuracyEstimate,
    DecisionKind,
    DetectorVerdict,
    LabelledAccuracy,
    Moved,
)
from autovision.records.history import (
    Awaited,
    DriftWindow,
    GroupFigure,
    HeldBack,
    History,
    ModelFigures,
    Month,
    Reign,
    SearchFacts,
    Standing,
    ToldDecision,
    reach,
)
from autovision.records.models import Interval
from autovision.records.searches import SearchStatus
from autovision.report.decisions_section import runs
from autovision.report.history import headline, render
from autovision.report.history_sections import (
    MOST,
    alarming,
    episodes,
    harm,
    led_to,
    moved,
    said_by_labels,
    span,
)
from autovision.report.svg import times
from autovision.report.timeline import timeline

HOSTILE = "<script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(2)>&amp;"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

# --------------------------------------------------------------------------------------- any history at all

# XML, by which the page is checked, cannot hold control characters; HTML shows them as nothing.
names = st.sampled_from([HOSTILE, "pets-m-1234567890", "", "a" * 300]) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), max_size=12
)
moments = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))
shares = st.floats(0, 1)
figures = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 10**9)
seconds = st.floats(0, 1e9)


def intervals(make: Any, **others: Any) -> st.SearchStrategy[Any]:
    three = st.tuples(shares, shares, shares).map(sorted)
    return st.tuples(three, st.fixed_dictionaries(others)).map(
        lambda found: make(low=found[0][0], value=found[0][1], high=found[0][2], **found[1])
    )


verdicts = st.builds(
    DetectorVerdict,
    name=st.sampled_from(["input", "accuracy"]) | names,
    alarm=st.booleans(),
    score=figures,
    threshold=figures,
    p_value=shares,
    alpha=shares,
    windows=st.integers(1, 32),
    n=counts,
    reference_n=counts,
    moved=st.lists(
        st.builds(
            Moved,
            kind=st.sampled_from(["class", "figure", "subgroup"]),
            name=names,
            window=figures,
            reference=figures,
            n=counts,
            p_value=shares,
        ),
        max_size=5,
    ).map(tuple),
)
windows = st.builds(
    DriftWindow,
    report=names,
    model=names,
    start=moments,
    end=moments,
    n=counts,
    alarm=st.booleans(),
    detectors=st.lists(verdicts, max_size=4).map(tuple),
    estimate=st.none()
    | intervals(AccuracyEstimate, by_difference=shares, held_out=shares, n=counts, held_out_n=counts),
    accuracy=st.none()
    | intervals(
        LabelledAccuracy,
        n=counts,
        expected=shares,
        held_out=shares,
        reviewed=counts,
        confidence=shares,
        confidence_of_all=shares,
    ),
    notes=st.lists(names, max_size=2).map(tuple),
    harm=st.none() | st.booleans(),
    search=st.none() | names,
)
groups = st.dictionaries(
    names,
    intervals(GroupFigure, n=counts)
    | shares.map(lambda value: GroupFigure(value=value, low=None, high=None, n=None)),
    max_size=3,
)
models = st.builds(
    ModelFigures,
    model=names,
    dataset=names,
    search=names,
    parents=st.lists(names, max_size=2).map(tuple),
    registered_at=moments,
    n=counts,
    accuracy=intervals(Interval),
    metric=st.sampled_from(["accuracy", "f1"]) | names,
    value=st.none() | intervals(Interval),
    recall=groups,
    subgroups=groups,
)
decisions = st.builds(
    ToldDecision,
    id=names,
    at=moments,
    kind=st.sampled_from(DecisionKind),
    accepted=st.booleans(),
    what=names,
    why=names,
    subject=st.none() | names,
    waits=st.booleans(),
    made_champion=st.booleans(),
)
searches = st.builds(
    SearchFacts,
    search=names,
    at=moments,
    dataset=names,
    status=st.sampled_from(SearchStatus),
    reason=names,
    decision=st.none() | names,
    spent_s=seconds,
    budget_s=seconds,
    trials=counts,
    cost=st.none() | seconds,
    currency=names,
    model=st.none() | names,
    became_champion=st.booleans(),
)
months = st.builds(
    Month,
    month=st.sampled_from(["2026-03", "2026-04"]),
    searches=counts,
    spent_s=seconds,
    cost=st.dictionaries(names, seconds, max_size=2),
    champions=counts,
    windows=counts,
    alarms=counts,
    harmful=counts,
    harmless=counts,
    requests=counts,
    labelled=counts,
)


standings = st.builds(
    Standing,
    evaluated_at=moments,
    what=names,
    time_zone=st.sampled_from(["UTC", "Asia/Tokyo"]),
    triggers=st.lists(
        st.builds(
            Awaited, trigger=names, fires=st.booleans(), why=names, needs=names, at=st.none() | moments
        ),
        max_size=3,
    ).map(tuple),
    limits=st.lists(st.builds(HeldBack, limit=names, why=names, until=st.none() | moments), max_size=2).map(
        tuple
    ),
    spent_day_s=st.none() | seconds,
    budget_day_s=st.none() | seconds,
    spent_month_s=st.none() | seconds,
    budget_month_s=st.none() | seconds,
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    since = draw(moments)
    known = draw(st.lists(models, max_size=3))
    reigns = draw(
        st.lists(
            st.builds(
                Reign,
                model=st.sampled_from([each.model for each in known]) | names if known else names,
                since=moments,
                until=st.none() | moments,
                decision=st.none() | names,
            ),
            max_size=4,
        )
    )
    return History(
        deployment=draw(names),
        dataset=draw(names),
        uri=draw(names),
        since=since,
        until=since + draw(st.timedeltas(timedelta(0), timedelta(days=4000))),
        champion=draw(st.none() | (st.just(reigns[-1].model) if reigns else names)),
        challenger=draw(st.none() | names),
        metric=draw(names),
        reigns=tuple(reigns),
        models={each.model: each for each in known},
        windows=tuple(draw(st.lists(windows, max_size=5))),
        decisions=tuple(draw(st.lists(decisions, max_size=5))),
        searches=tuple(draw(st.lists(searches, max_size=3))),
        months=tuple(draw(st.lists(months, max_size=2))),
        requests_counted=draw(st.booleans()),
        notes=tuple(draw(st.lists(names, max_size=2))),
        standing=draw(st.none() | standings),
    )


def read(page: str) -> ElementTree.Element:
    """The page, checked: each element is closed, every text escaped, nothing loaded or run, no coordinate missing."""
    start, _, body = page.partition("\n")
    assert start == "<!doctype html>"
    root = ElementTree.fromstring(body)
    allowed = re.compile(r"[a-z]+[1-6]?")
    for element in root.iter():
        assert allowed.fullmatch(element.tag)
        assert element.tag not in ("script", "img", "link", "iframe", "object", "embed", "a", "form")
        assert not {name for name in element.attrib if name.startswith("on") or name in ("src", "href")}
        if element.tag in ("line", "rect", "circle", "path"):
            assert not re.search(r"\b(nan|inf)\b", " ".join(element.attrib.values()))
        if element.tag == "svg":
            assert element.attrib.get("aria-label") or element.attrib.get("aria-hidden") == "true"
        if element.tag == "th":
            assert element.attrib["scope"] in ("row", "col")
    return root


def said(root: ElementTree.Element) -> str:
    return re.sub(r"\s+", " ", " ".join(root.itertext()))


@settings(max_examples=60)
@given(histories())
def test_any_history_is_told_well_formed_and_does_no_harm(history: History) -> None:
    root = read(render(history))
    assert len(list(root.iter("h1"))) == 1
    assert history.deployment in [element.text or "" for element in root.iter("h1")]


@given(histories())
def test_any_history_comes_back_from_json(history: History) -> None:
    assert History.model_validate_json(history.to_json()) == history


def test_the_page_loads_nothing() -> None:
    page = render(story())
    assert not re.search(r"https?:|@import|url\(", page)
    assert "default-src &#x27;none&#x27;" in page


# --------------------------------------------------------------------------------------------- one history


def verdict(name: str, ratio: float, *, moved: tuple[Moved, ...] = (), windows: int = 1) -> DetectorVerdict:
    return DetectorVerdict(
        name=name,
        alarm=ratio >= 1,
        score=0.02 * ratio,
        threshold=0.02,
        p_value=0.0001 if ratio >= 1 else 0.4,
        alpha=0.001,
        windows=windows,
        n=100,
        reference_n=200,
        moved=moved,
    )


def window(days: float, *found: DetectorVerdict, **others: Any) -> DriftWindow:
    end = NOON + timedelta(days=days)
    return DriftWindow.model_validate(
        {
            "report": f"r-{days}",
            "model": "first",
            "start": end - timedelta(hours=2),
            "end": end,
            "n": 100,
            "alarm": any(each.alarm for each in found),
            "detectors": found,
            "estimate": None,
            "accuracy": None,
            "notes": (),
            "harm": None,
            "search": None,
            **others,
        }
    )


def decision(days: float, kind: DecisionKind, *, accepted: bool = True, **others: Any) -> ToldDecision:
    return ToldDecision.model_validate(
        {
            "id": f"d-{days}",
            "at": NOON + timedelta(days=days),
            "kind": kind,
            "accepted": accepted,
            "what": "what was decided",
            "why": "why it was",
            "subject": None,
            "waits": False,
            "made_champion": False,
            **others,
        }
    )


SHIFT = Moved(kind="class", name="defective", window=0.52, reference=0.31, n=100, p_value=1e-6)


def story(**others: Any) -> History:
    """A first model drifts, and a second one takes over."""
    quiet = [window(days, verdict("input", 0.2), verdict("quality", 0.5)) for days in range(1, 20)]
    loud = window(20, verdict("input", 9.0, moved=(SHIFT,)), verdict("quality", 0.5), harm=True, search="s-2")
    model = ModelFigures(
        model="first",
        dataset="pets@1",
        search="s-1",
        parents=(),
        registered_at=NOON,
        n=238,
        accuracy=Interval(value=0.857, low=0.807, high=0.896),
        metric="f1",
        value=Interval(value=0.8, low=0.75, high=0.85),
        recall={"cat": GroupFigure(value=0.9, low=0.8, high=0.95, n=70)},
        subgroups={"camera=2": GroupFigure(value=0.83, low=0.7, high=0.9, n=40)},
    )
    second = model.with_(model="second", dataset="pets@2", search="s-2")
    told = {
        "deployment": "pets",
        "dataset": "pets",
        "uri": "file:///srv/store",
        "since": NOON,
        "until": NOON + timedelta(days=30),
        "champion": "second",
        "challenger": None,
        "metric": "f1",
        "reigns": (
            Reign(model="first", since=NOON, until=NOON + timedelta(days=21), decision="d-0"),
            Reign(model="second", since=NOON + timedelta(days=21), until=None, decision="d-21"),
        ),
        "models": {"first": model, "second": second},
        "windows": (*quiet, loud),
        "decisions": (
            decision(0, DecisionKind.PROMOTE, made_champion=True),
            *(decision(day, DecisionKind.RETRAIN, accepted=False, waits=True) for day in (5, 6, 7)),
            decision(20, DecisionKind.RETRAIN, what="search again, because of drift"),
            decision(21, DecisionKind.PROMOTE, made_champion=True),
        ),
        "searches": (
            SearchFacts(
                search="s-2",
                at=NOON + timedelta(days=20),
                dataset="pets@2",
                status=SearchStatus.FINISHED,
                reason="search again, because of drift",
                decision="d-20",
                spent_s=600,
                budget_s=900,
                trials=120,
                cost=1.25,
                currency="EUR",
                model="second",
                became_champion=True,
            ),
        ),
        "months": (
            Month(
                month="2026-03",
                searches=1,
                spent_s=600,
                cost={"EUR": 1.25},
                windows=20,
                alarms=1,
                harmful=1,
                requests=2000,
                labelled=64,
            ),
        ),
        "requests_counted": True,
        "notes": (),
    }
    return History.model_validate({**told, **others})


def test_the_page_tells_the_story() -> None:
    found = said(read(render(story())))
    for each in (
        "second is champion since 2026-03-22 12:00: accuracy 0.857 [0.807, 0.896] on 238 held-out images.",
        "1 of 20",
        "windows; by labels: 1 worse",
        "10 min, 1.25 EUR",
        "answers defective 0.31 → 0.52",
        f"input {times('9')}",
        "3 times since 2026-03-06 12:00",
        "2,000",
        "0.900 [0.800, 0.950], 70",
        "f1 0.800 [0.750, 0.850]",
        "autovision report pets --json",
        "file:///srv/store",
    ):
        assert each in found


def test_the_page_tells_what_the_next_search_waits_for() -> None:
    standing = Standing(
        evaluated_at=NOON,
        what="do not search again yet",
        time_zone="Asia/Tokyo",
        triggers=(Awaited(trigger="schedule", fires=True, why="the slot has come", needs="", at=NOON),),
        limits=(HeldBack(limit="budget_month", why="the budget is spent", until=NOON + timedelta(days=1)),),
        spent_day_s=None,
        budget_day_s=600,
        spent_month_s=3000,
        budget_month_s=3600,
    )
    found = said(read(render(story(standing=standing))))
    for each in (
        "fires 2026-03-01 21:00 the slot has come",
        "budget_month 2026-03-02 21:00 the budget is spent",
        "50 min of 1 h 00 min are spent this month",
        "autovision policy show pets",
    ):
        assert each in found
    assert "No controller has looked yet" in said(read(render(story())))
    assert "No model was promoted yet" in said(read(render(story(champion=None))))


def drawn(history: History, name: str, width: float = 1080) -> list[ElementTree.Element]:
    root = ElementTree.fromstring(timeline(history, width))
    return [element for element in root.iter() if name in element.attrib.get("class", "").split()]


def test_the_drawing_has_every_alarm_model_search_and_act() -> None:
    for width in (340.0, 1080.0):
        history = story()
        assert len(drawn(history, "alarmed", width)) == 1
        assert len(drawn(history, "silent", width)) == 39, "twenty windows, two detectors, one alarm"
        assert len(drawn(history, "reign", width)) == 2
        assert len(drawn(history, "band", width)) == 2
        assert len(drawn(history, "bar", width)) == 1
        assert len(drawn(history, "mark", width)) == 3, "waiting has no mark"
        for element in drawn(history, "reign", width):
            assert 0 <= float(element.attrib["x"]) <= width
            assert float(element.attrib["x"]) + float(element.attrib["width"]) <= width


def test_an_alarm_lies_above_its_threshold_and_silence_below() -> None:
    history = story(windows=(window(5, verdict("input", 0.5)), window(9, verdict("input", 50.0))))
    (limit,) = drawn(history, "limit")
    (silent,), (alarmed,) = drawn(history, "silent"), drawn(history, "alarmed")
    assert float(alarmed.attrib["cy"]) < float(limit.attrib["y1"]) < float(silent.attrib["cy"])


def test_of_very_many_windows_the_alarms_are_drawn() -> None:
    many = [window(30 * i / 20_000, verdict("input", 7.0 if i == 12_345 else 0.3)) for i in range(20_000)]
    history = story(windows=tuple(many))
    assert len(drawn(history, "alarmed")) == 1
    assert 100 < len(drawn(history, "silent")) < 250
    assert len(render(history)) < 300_000


def test_of_a_detector_that_spoke_of_several_lengths_the_most_alarming_counts() -> None:
    found = window(3, verdict("input", 0.5), verdict("input", 2.0, windows=4), verdict("quality", 1.5))
    assert alarming([found]) == f"input {times('2')}, quality {times('1.5')}"
    assert len(drawn(story(windows=(found,)), "alarmed")) == 2


def test_a_threshold_that_cannot_be_divided_by_still_tells_alarms_apart() -> None:
    silent = verdict("accuracy", 0.5).with_(threshold=0.0)
    assert reach(silent) == 0.0
    assert reach(silent.with_(alarm=True)) == 1.0


def test_what_moved_is_told_the_surest_first_and_not_all_of_it() -> None:
    each = [SHIFT.with_(name=f"c{i}", p_value=0.1 - 0.01 * i) for i in range(5)]
    found = moved([window(3, verdict("prediction", 2.0, moved=tuple(each)))])
    assert found == "answers c4 0.31 → 0.52, answers c3 0.31 → 0.52, answers c2 0.31 → 0.52, and 2 more"


def test_windows_that_alarm_one_after_the_other_are_one_time_of_alarm() -> None:
    loud, quiet = verdict("input", 3.0), verdict("input", 0.3)
    found = episodes(
        [
            window(1, loud, harm=True),
            window(2, verdict("input", 5.0, moved=(SHIFT,)), search="s-2"),
            window(3, loud),
            window(4, loud, model="second"),
            window(5, quiet),
            window(6, loud, harm=False),
        ]
    )
    assert [len(each) for each in found] == [3, 1, 1]
    first, _, last = found
    assert (alarming(first), led_to(first), harm(first)) == (f"input {times('5')}", "s-2", True)
    assert moved(first) == "answers defective 0.31 → 0.52"
    assert re.sub("<.*?>", "", span(first)) == "2026-03-02 12:00 to 2026-03-04 12:00"
    assert (harm(last), led_to(last)) == (False, "")
    assert span(last) == '<time datetime="2026-03-07T12:00Z">2026-03-07 12:00</time>'


def test_what_labels_said_of_a_time_of_alarm_is_what_they_said_of_most_of_it() -> None:
    """The labels that came after its last window may be of what is normal again."""
    loud = verdict("input", 3.0)
    low = LabelledAccuracy(
        value=0.6, low=0.5, high=0.7, n=50, expected=0.84, held_out=0.82, reviewed=0, confidence=0.8,
        confidence_of_all=0.8,
    )  # fmt: skip
    usual = low.with_(value=0.84, low=0.75, high=0.9, n=20)
    told = [
        window(1, loud, harm=True, accuracy=low),
        window(2, loud, harm=True),
        window(3, loud, harm=False, accuracy=usual),
    ]
    assert harm(told) is True
    assert said_by_labels(told) == "worse after 2 of 3: 0.600 [0.500, 0.700], 0.840 expected, n = 50"
    assert said_by_labels(told[2:]) == "not worse: 0.840 [0.750, 0.900], 0.840 expected, n = 20"
    assert (harm(told[:0]), said_by_labels([window(4, loud)])) == (None, "none yet")


def test_a_search_and_what_became_of_its_model_are_drawn_beneath_each_other() -> None:
    acts = (
        decision(20, DecisionKind.RETRAIN),
        decision(20.01, DecisionKind.PROMOTE, accepted=False),
    )
    root = ElementTree.fromstring(timeline(story(decisions=acts), 340))
    marks = [each for each in root.iter() if "mark" in each.attrib.get("class", "").split()]
    heights = {each.attrib.get("y") or re.findall(r"[\d.]+", each.attrib["d"])[1] for each in marks}
    assert len(marks) == 2 and len(heights) == 2


def test_where_nothing_has_happened_the_page_says_so_and_what_to_do() -> None:
    nothing = {name: () for name in ("reigns", "windows", "decisions", "searches")}
    root = read(render(story(champion=None, models={}, months=(Month(month="2026-03"),), **nothing)))
    found = said(root)
    assert not [each for each in root.iter("svg") if each.attrib.get("role") == "img"]
    for each in (
        "Nothing has happened yet",
        "autovision promote MODEL --to pets",
        "No model has been champion yet",
        "No window of requests has been examined yet",
    ):
        assert each in found


def test_reasons_to_wait_that_follow_each_other_are_one() -> None:
    found = runs(story().decisions)
    assert [len(each) for each in found] == [1, 3, 1, 1]


def test_of_many_decisions_the_latest_are_told() -> None:
    many = tuple(
        decision(i / 10, DecisionKind.PROMOTE, accepted=False, what=f"refusal {i:03d}") for i in range(100)
    )
    found = said(read(render(story(decisions=many))))
    assert f"The latest {MOST} of 100 decisions, newest first." in found
    assert (
        "refusal 099" in found
        and "refusal 060" in found
        and "refusal 059" not in found.split("Decisions, and why")[1]
    )


def test_nothing_promoted_is_told_as_that() -> None:
    empty = story(
        champion=None,
        reigns=(),
        models={},
        windows=(),
        decisions=(),
        searches=(),
        months=(),
        metric="accuracy",
    )
    assert headline(empty) == "No model has been promoted yet."
    found = said(read(render(empty)))
    assert "No window of requests has been examined yet." in found


def test_an_estimated_number_of_requests_is_told_as_that() -> None:
    assert "about 2,000" in said(read(render(story(requests_counted=False))))
