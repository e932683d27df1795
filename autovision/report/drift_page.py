"""A drift report as one page: the verdicts, what moved, and a contact sheet of what is unlike and what is usual."""

from __future__ import annotations

from collections.abc import Mapping

from autovision.monitoring.told import change, told
from autovision.records.deployments import (
    AccuracyEstimate,
    DetectorVerdict,
    DriftReport,
    LabelledAccuracy,
    Moved,
)
from autovision.report.detector_words import detector_words, figure_words
from autovision.report.document import document
from autovision.report.parts import code, row, section, table
from autovision.report.pictures import picture
from autovision.report.svg import Markup, join, minus, tag

_SUREST = 4
"""of what moved, in the page's first sentence"""


def render(report: DriftReport, images: Mapping[str, bytes]) -> str:
    """The whole page. Every text from outside is escaped.

    Args:
        images: those that are there, by digest.
    """
    return document(
        title=f"Drift report of {report.deployment}",
        header=_header(report),
        main=join(
            [
                _detectors(report),
                _moved(report),
                _accuracy(report),
                _unlike(report, images),
                _typical(report, images),
                _next(report),
            ]
        ),
        footer=tag(
            "footer",
            *(tag("p", note) for note in report.notes),
            tag(
                "p", "As JSON: ", code(f"autovision monitor {report.deployment} --report {report.id} --json")
            ),
        ),
    )


def _header(report: DriftReport) -> Markup:
    when = f"{report.window_start:%Y-%m-%d %H:%M:%S} to {report.window_end:%Y-%m-%d %H:%M:%S} UTC"
    return tag(
        "header",
        tag("p", f"AutoVision monitor · {report.deployment} · {report.model} · {when}", class_="kicker"),
        tag(
            "h1",
            f"Drift in {report.n} requests" if report.alarm else f"No drift in {report.n} requests",
        ),
        tag("p", _said(report), class_="verdict not" if report.alarm else "verdict"),
    )


def _said(report: DriftReport) -> str:
    """Of an alarm who raises it and what moved most surely; the tables have the numbers."""
    if not report.alarming:
        return told(report)
    names = [*dict.fromkeys(each.name for each in report.alarming)]
    moved = sorted((each for said in report.alarming for each in said.moved), key=lambda each: each.p_value)
    found: dict[str, Moved] = {}
    for each in moved:
        found.setdefault(each.name, each)
    surest = list(found.values())[:_SUREST]
    return f"Alarm of {', '.join(names)}." + (
        f" What moved most surely: {', '.join(minus(change(each)) for each in surest)}." if surest else ""
    )


def _detectors(report: DriftReport) -> Markup:
    head = ("detector", "windows", "verdict", "score", "alarm at", "p", "alarm at p", "n", "reference")
    rate = report.windows_per_false_alarm
    return section(
        "Detectors",
        f"All together raise a false alarm in one of {rate:g} windows without drift, or fewer; each has its share: it "
        "alarms where p, of a score like this without drift, is at most that. Windows: so many of the latest, taken "
        "together. Reference: the images that they are compared with."
        if rate
        else f"Without drift a window raises an alarm with probability {report.alpha:g}.",
        table(head, [_verdict(each) for each in report.detectors], numbers=range(3, 9)),
        detector_words(dict.fromkeys(each.name for each in report.detectors)),
    )


def _verdict(said: DetectorVerdict) -> Markup:
    cells = [
        str(said.windows),
        "alarm" if said.alarm else "silent",
        minus(f"{said.score:.4f}"),
        minus(f"{said.threshold:.4f}"),
        f"{said.p_value:.2g}",
        f"{said.alpha:.2g}",
        str(said.n),
        str(said.reference_n),
    ]
    return row(said.name, cells, class_="alarming" if said.alarm else "", numbers=range(3, 9))


def _moved(report: DriftReport) -> Markup | None:
    rows = [_change(said, each) for said in report.alarming for each in said.moved]
    if not rows:
        return None
    head = ("what moved", "detector", "kind", "reference", "window", "images", "p")
    return section(
        "What moved",
        "Classes by their rate, figures by their mean, or the spread around the usual mean. Groups of images by how "
        "unlike the reference they are: 0.5 without drift, 1 where all are more unlike than any of the reference. "
        "The p-values allow for how many were looked at.",
        table(head, rows, numbers=range(3, 7)),
        figure_words(each.name for said in report.alarming for each in said.moved if each.kind == "figure"),
    )


def _change(said: DetectorVerdict, moved: Moved) -> Markup:
    cells = [
        said.name,
        moved.kind,
        minus(f"{moved.reference:.3g}"),
        minus(f"{moved.window:.3g}"),
        str(moved.n),
        f"{moved.p_value:.2g}",
    ]
    return row(moved.name, cells, numbers=range(3, 7))


def _accuracy(report: DriftReport) -> Markup | None:
    said = [
        *([_labelled(report.accuracy)] if report.accuracy else []),
        *([_estimate(report.estimate)] if report.estimate else []),
    ]
    if not said:
        return None
    return section("Accuracy", "As far as it is known.", *(tag("p", each) for each in said))


def _labelled(found: LabelledAccuracy) -> str:
    return (
        f"By {found.n} new labels {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]; held-out images of the same "
        f"confidences come to {found.expected:.3f}, and all of them to {found.held_out:.3f}. {found.reviewed} of the "
        f"labels are of reviews, which ask of what is hard; mean confidence {found.confidence:.3f} of the labelled, "
        f"{found.confidence_of_all:.3f} of all requests."
    )


def _estimate(found: AccuracyEstimate) -> str:
    tried = ", ".join(f"{kind} {error:+.3f}" for kind, error in found.tried.items())
    return (
        f"Estimated without labels {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] by average thresholded "
        f"confidence, {found.by_difference:.3f} by the difference of confidences; {found.held_out:.3f} on held-out "
        "images. The interval is that of chance alone: where inputs drift, the model may be sure of what it has never "
        "seen, and the accuracy far lower. Labels tell."
        + (f" On held-out images with corruptions the estimate is off by: {tried}." if tried else "")
    )


def _unlike(report: DriftReport, images: Mapping[str, bytes]) -> Markup | None:
    cards = [
        _card(
            images.get(each.image),
            f"{number}",
            f"more unlike than {100 * each.unlikeness:.0f} % of the reference",
            each.why,
            each.request_id,
        )
        for number, each in enumerate(report.unlike, start=1)
    ]
    if not cards:
        return None
    return section(
        "Most unlike the reference",
        "Requests of this window, the worst first, by what the model sees in them.",
        tag("ul", *cards, class_="examples"),
    )


def _typical(report: DriftReport, images: Mapping[str, bytes]) -> Markup | None:
    cards = [
        _card(images[each], f"{number}", "held out", "", each[:12])
        for number, each in enumerate(report.typical, start=1)
        if each in images
    ]
    if not cards:
        return None
    return section(
        "Typical of the reference",
        "Held-out images of the data set, for comparison.",
        tag("ul", *cards, class_="examples"),
    )


def _next(report: DriftReport) -> Markup | None:
    """What a person may do about an alarm."""
    if not report.alarm:
        return None
    name = report.deployment
    acts = (
        (
            "See whether the model is worse on such images: label what is most worth it",
            f"labels review {name} --to FOLDER",
        ),
        ("Without labels, put it right where that is sure to help", f"adapt {name}"),
        ("See what the loop makes of it, and what a search waits for", f"controller why {name}"),
        ("Have it search again now", f"controller trigger {name}"),
    )
    return section(
        "What to do",
        "The alarm says that requests have changed, not that the model is worse on them.",
        tag("ul", *(tag("li", f"{what}: ", code(f"autovision {line}")) for what, line in acts)),
    )


def _card(data: bytes | None, number: str, what: str, why: str, which: str) -> Markup:
    return tag(
        "li",
        picture(data, what) if data is not None else tag("p", "the image is not kept"),
        tag(
            "div",
            tag("strong", number),
            tag("span", f" · {what}", class_="soft"),
            tag("span", why, class_="answer") if why else None,
            tag("span", code(which), class_="answer soft"),
        ),
    )
