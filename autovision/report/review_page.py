"""The review queue as one page: a contact sheet with what is asked of each image, and why."""

from __future__ import annotations

from collections.abc import Callable

from autovision.records.datasets import spoken
from autovision.report.document import document
from autovision.report.parts import code, section
from autovision.report.pictures import picture
from autovision.report.svg import Markup, join, tag
from autovision.review.queue import Entry, Reason, ReviewQueue

_LIKELY = 3
"""classes whose probabilities are shown"""
_TITLES = {
    Reason.DISPUTED: (
        "Annotators contradict each other, or are mostly wrong",
        "None of these teaches anything until it is settled: a review's word stands for all earlier ones. Score: how "
        "unsure the model is, from 0 to 1.",
    ),
    Reason.ERROR: (
        "Labels that are probably wrong",
        "The clearest first. What never saw the label is surer of another class than one may usually be of that. "
        "Score: the nearer to 1, the clearer.",
    ),
    Reason.UNSURE: (
        "Worth a label",
        "Captured images of which the model is unsure and which differ from each other, in the order in which they "
        "were drawn: the first ones are worth the most. Score: how unsure the model is, from 0 to 1.",
    ),
}


def render(queue: ReviewQueue, read: Callable[[str], bytes]) -> str:
    """The whole page. `read` gives an image's bytes by its digest."""
    numbered = list(enumerate(queue.entries, start=1))
    sections = []
    for reason, (title, lead) in _TITLES.items():
        cards = [_card(number, entry, read) for number, entry in numbered if entry.reason is reason]
        if cards:
            sections.append(section(f"{title} ({len(cards)})", lead, tag("ul", *cards, class_="examples")))
    return document(
        title=f"Review queue of {queue.deployment}",
        header=_header(queue),
        main=join(sections or [tag("p", "There is nothing to look at.")]),
        footer=tag("footer", *(tag("p", note) for note in queue.notes)),
    )


def _header(queue: ReviewQueue) -> Markup:
    several = ", several with | between them, or | alone for none" if queue.multi_label else ""
    return tag(
        "header",
        tag(
            "p", f"AutoVision review · {queue.deployment} · {queue.dataset} · {queue.model}", class_="kicker"
        ),
        tag("h1", f"{len(queue.entries)} images to look at"),
        tag(
            "p",
            "Fill the column ",
            code("new_label"),
            f" of queue.csv with one of {', '.join(queue.classes)}{several}. ",
            "Numbers are those of the image files. Then ",
            code(f"autovision labels import {queue.deployment} FOLDER --annotator NAME"),
            ". Rows that stay empty say nothing. A captured image of a class that is none of these may be given its "
            "name, which the import takes with ",
            code("--new-class NAME"),
            ".",
            class_="verdict",
        ),
    )


def _card(number: int, entry: Entry, read: Callable[[str], bytes]) -> Markup:
    likely = sorted(entry.probabilities.items(), key=lambda pair: -pair[1])[:_LIKELY]
    probabilities = ", ".join(f"{name} {100 * p:.0f}\N{NO-BREAK SPACE}%" for name, p in likely)
    told = entry.answer != likely[0][0]  # otherwise the probabilities tell it
    where = f"{entry.split} image" if entry.split else "captured"
    return tag(
        "li",
        picture(read(entry.image), entry.why),
        tag(
            "div",
            tag("strong", f"{number}"),
            tag("span", f" · {where} · score {entry.score:.2f}", class_="soft"),
            tag("span", entry.why, class_="answer"),
            tag("span", f"answer {spoken(entry.answer)}", class_="answer soft") if told else None,
            tag("span", probabilities, class_="answer soft"),
            tag("span", code(entry.request_id or entry.source), class_="answer soft"),
        ),
    )
