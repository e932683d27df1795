"""The page stands alone, is well-formed, tells the numbers and cannot be injected into."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from autovision.demo.page import render
from autovision.demo.result import DemoResult

HOSTILE = "<script>alert(1)</script>\"'><img src=https://evil.example/x onerror=alert(2)>&amp;"
VOID = {"meta", "img", "br", "line", "rect", "circle", "path", "hr"}


class Reader(HTMLParser):
    """Collects elements and text, and checks that they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID and (not self.open or self.open[-1] != tag):
            return
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.elements if name in attrs]

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.faults
    assert not reader.open
    return reader


@pytest.fixture(scope="module")
def page(result: DemoResult) -> str:
    return render(result)


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return read(page)


def test_it_loads_nothing(page: str, reader: Reader) -> None:
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    assert all(source.startswith("data:image/png;base64,") for source in reader.attributes("src"))
    assert not reader.attributes("href")
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in reader.elements}
    policy = next(attrs["content"] for _, attrs in reader.elements if "http-equiv" in attrs)
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_it_tells_the_result_and_every_section(reader: Reader) -> None:
    assert "30.5 %" in reader.said
    assert "79.8 %" in reader.said
    assert "Clearly better on poly cells" in reader.said
    for heading in (
        "Before and after",
        "What happened",
        "The searches",
        "Drift",
        "Decisions, and why",
        "Examples",
    ):
        assert heading in reader.said
    assert "drift score 0.0942 is 30.4 times its threshold" in reader.said
    assert "file:///srv/plant/store" in reader.said
    assert "0.798 [0.764, 0.832]" in reader.said


def test_it_tells_lineage_of_both_models(result: DemoResult, reader: Reader) -> None:
    for side in (result.before, result.after):
        lineage = side.model.lineage
        for fact in (
            lineage.dataset_digest,
            lineage.backbone_weights_digest,
            lineage.search,
            lineage.code_version,
        ):
            assert fact in reader.said


def test_it_shows_every_example_with_words_for_it(result: DemoResult, reader: Reader) -> None:
    images = [attrs for tag, attrs in reader.elements if tag == "img"]
    assert len(images) == len(result.examples)
    for attrs, example in zip(images, result.examples, strict=True):
        assert base64.b64decode((attrs["src"] or "").partition(",")[2]) == example.image
        assert example.truth in (attrs["alt"] or "")


def test_it_is_accessible(reader: Reader) -> None:
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("h1") == 1
    assert tags.count("title") >= 1
    assert dict(reader.elements)["html"] == {"lang": "en"}
    for tag, attrs in reader.elements:
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
        if tag == "th":
            assert attrs.get("scope") in ("row", "col")


def test_both_models_and_all_trials_are_drawn(result: DemoResult, page: str) -> None:
    # Each chart is there twice: for desktop and for phones.
    curves = sum(len(trial.curve) > 1 for view in result.searches for trial in view.trials)
    assert len(re.findall(r'class="trace (?:thin|winner)"', page)) - 4 == 2 * curves
    assert page.count("trial 0, ") >= 1


def test_hostile_text_is_shown_and_does_nothing(tell: Any, result: DemoResult) -> None:
    view = result.searches[0]
    trials = tuple(t.with_(config={**t.config, "backbone": HOSTILE}, origin=HOSTILE) for t in view.trials)
    hostile = view.with_(title=HOSTILE, request=view.request.with_(reason=HOSTILE), trials=trials)
    lineage = result.before.model.lineage.with_(backbone=HOSTILE, code_version=HOSTILE, parents=(HOSTILE,))
    model = result.before.model.with_(lineage=lineage, id=HOSTILE)
    told = tell(
        store=HOSTILE,
        image_credit=HOSTILE,
        searches=(hostile, result.searches[1]),
        before=result.before.with_(model=model),
        stages=[stage.with_(name=HOSTILE, detail=HOSTILE) for stage in result.stages],
        parts=[part.with_(name=HOSTILE, use=HOSTILE) for part in result.parts],
        decisions=[
            each.with_(what=HOSTILE, why=HOSTILE, numbers={HOSTILE: HOSTILE}) for each in result.decisions
        ],
        examples=[
            each.with_(truth=HOSTILE, before=each.before.with_(label=HOSTILE)) for each in result.examples
        ],
    )
    reader = read(render(told))
    assert "script" not in {tag for tag, _ in reader.elements}
    assert not reader.attributes("onerror")
    assert all(source.startswith("data:") for source in reader.attributes("src"))
    assert HOSTILE in "".join(reader.text)


def test_an_unhappy_story_is_told_as_one(tell: Any, result: DemoResult) -> None:
    told = tell(
        after=result.before, searches=result.searches[:1], drift=(), decisions=(), examples=(), outcomes={}
    )
    reader = read(render(told))
    assert "stays at 30.5 %" in reader.said
    assert "no second model was promoted" in reader.said
    assert "Examples" not in reader.said


def test_a_search_without_trials_is_survived(tell: Any, result: DemoResult) -> None:
    view = result.searches[1]
    empty = view.with_(trials=(), state=view.state.with_(best_trial=None, best_value=None))
    reader = read(render(tell(searches=(result.searches[0], empty))))
    assert "no trial reported" in reader.said
    assert "No winner." in reader.said
