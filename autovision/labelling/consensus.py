"""What annotators agree on of each request, how sure that is, and how good each of them is.

Each annotator counts with their latest word, by when they said it. Where all say the same, that is it; where they do
not, Dawid and Skene weigh them (`agreement`), and a request on which nothing comes out clearly is disputed: no label,
but work for a review.
So is one of which only people spoke who were shown to be wrong more often than not. A word that was given in a review,
knowing the others, stands for all that were not.
The words are put in order first, so the result depends on what was said and when, never on how or how often it came.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autovision.labelling.agreement import Estimate, Words, dawid_skene
from autovision.records.datasets import Labels, labels_of
from autovision.records.deployments import Label

CLEAR = 0.7
"""least probability of a label that some annotator contradicts"""
LIKELY = 0.5
"""the same of one that nobody contradicts, of people who are known: below, it is wrong more often than not"""
PROVEN = 5
"""an annotator who was compared with others on fewer requests is taken at their word"""

_Word = tuple[str, Labels, float, bool]
"""annotator, label, confidence, whether it was said in a review"""
_Pattern = tuple[_Word, ...]


@dataclass(frozen=True)
class Annotator:
    """What is known of one annotator."""

    name: str
    words: int
    """requests of which they spoke"""
    compared: int
    """of these, how many another one spoke of, too"""
    accuracy: float | None
    """estimated share of their words that are right; None: compared on too few"""


@dataclass(frozen=True)
class Consensus:
    """What comes of all words."""

    agreed: Mapping[str, Label]
    """request id -> label, in the order of the ids; its confidence is that of the consensus, its annotator all who
    said so, its time that of the last of them"""
    disputed: tuple[str, ...]
    """requests on which annotators contradict each other and nothing comes out clearly, or of which only such people
    spoke who are mostly wrong, sorted"""
    annotators: tuple[Annotator, ...]
    """by name"""


def latest_words(labels: Iterable[Label]) -> dict[str, dict[str, Label]]:
    """request id -> annotator -> their latest word, both sorted."""
    latest: dict[str, dict[str, Label]] = defaultdict(dict)
    for label in sorted(labels, key=_order):
        latest[label.request_id][label.annotator] = label
    return {request: dict(sorted(words.items())) for request, words in sorted(latest.items())}


def consensus(labels: Iterable[Label]) -> Consensus:
    """Weigh the words; see the module. Labels are all of one class, or all of any number of classes."""
    latest = latest_words(labels)
    patterns = {request: _pattern(words) for request, words in latest.items()}
    # Requests of which the same people said the same are one item: the work is that of the different ones.
    times = Counter(patterns.values())
    distinct = sorted(times, key=repr)
    weighed = _weigh(distinct, times)
    compared: Counter[str] = Counter()
    for pattern, count in times.items():
        if len(pattern) > 1:
            compared.update({name: count for name, *_ in pattern})
    proven = {name for name, count in compared.items() if count >= PROVEN}
    verdicts = {pattern: _verdict(pattern, *weighed.said[pattern], proven) for pattern in distinct}
    agreed, disputed = {}, []
    for request, words in latest.items():
        verdict = verdicts[patterns[request]]
        if verdict is None:
            disputed.append(request)
        else:
            agreed[request] = _told(words, *verdict)
    spoken = Counter(name for words in latest.values() for name in words)
    people = [
        Annotator(name, spoken[name], compared[name], weighed.accuracy[name] if name in proven else None)
        for name in sorted(spoken)
    ]
    return Consensus(agreed, tuple(disputed), tuple(people))


def _order(label: Label) -> tuple[object, ...]:
    """By time, and by the rest where times are equal, so that no result depends on the listing."""
    return label.when, label.received_at, label.request_id, label.annotator, label.label, label.confidence


def _pattern(words: Mapping[str, Label]) -> _Pattern:
    return tuple((name, word.label, word.confidence, word.review) for name, word in words.items())


def _verdict(
    pattern: _Pattern, label: Labels, probability: float, proven: set[str]
) -> tuple[Labels, float] | None:
    heard = _heard(pattern)
    said = {each for _, each, *_ in heard}
    if len(said) == 1:
        # Taken at their word: a second one who says the same must not make it less sure than one alone.
        trusted = [sure for name, _, sure, review in heard if review or name not in proven]
        weighed = len(trusted) < len(heard)
        (only,) = said
        sure = max([probability if weighed and only == label else 0.0, *trusted])
        return (only, sure) if trusted or sure >= LIKELY else None
    nobody_said_so = isinstance(label, str) and label not in said
    return None if probability < CLEAR or nobody_said_so else (label, probability)


def _heard(pattern: _Pattern) -> _Pattern:
    """The words that count: of a review, if there was one."""
    return tuple(word for word in pattern if word[3]) or pattern


def _told(words: Mapping[str, Label], label: Labels, confidence: float) -> Label:
    reviewed = [word for word in words.values() if word.review]
    ordered = sorted(reviewed or words.values(), key=_order)
    # Of several labels the set may be nobody's as a whole: then it is everybody's.
    agreeing = [word for word in ordered if word.label == label] or ordered
    return agreeing[-1].with_(
        label=label,
        confidence=round(confidence, 4),
        annotator=", ".join(sorted(word.annotator for word in agreeing)),
    )


# ---------------------------------------------------------------------------------------------- weighing


@dataclass(frozen=True)
class _Weighed:
    said: Mapping[_Pattern, tuple[Labels, float]]
    """the likeliest label, or set of them, and its probability"""
    accuracy: Mapping[str, float]


def _weigh(patterns: Sequence[_Pattern], times: Mapping[_Pattern, int]) -> _Weighed:
    if any(not isinstance(said, str) for pattern in patterns for _, said, *_ in pattern):
        return _weigh_sets(patterns, times)
    names = sorted({name for pattern in patterns for name, *_ in pattern})
    classes = sorted({str(said) for pattern in patterns for _, said, *_ in pattern})
    if len(classes) < 2:
        own = {p: (classes[0], max(sure for _, _, sure, _ in p)) for p in patterns}
        return _Weighed(own, dict.fromkeys(names, 1.0))
    column = {name: index for index, name in enumerate(classes)}
    said = [column[str(word)] for pattern in patterns for _, word, *_ in pattern]
    found = _estimate(patterns, times, names, said, len(classes))
    best = found.posterior.argmax(1)
    return _Weighed(
        {
            pattern: (classes[index], float(found.posterior[n, index]))
            for n, (pattern, index) in enumerate(zip(patterns, best.tolist(), strict=True))
        },
        dict(zip(names, found.accuracy.tolist(), strict=True)),
    )


def _weigh_sets(patterns: Sequence[_Pattern], times: Mapping[_Pattern, int]) -> _Weighed:
    """Each class by itself is there or not; a set is as sure as the least sure of its parts."""
    names = sorted({name for pattern in patterns for name, *_ in pattern})
    classes = sorted({each for pattern in patterns for _, said, *_ in pattern for each in labels_of(said)})
    present: dict[_Pattern, list[str]] = {pattern: [] for pattern in patterns}
    least = dict.fromkeys(patterns, 1.0)
    accuracies = []
    for name in classes:
        said = [int(name in labels_of(word)) for pattern in patterns for _, word, *_ in pattern]
        found = _estimate(patterns, times, names, said, 2)
        accuracies.append(found.accuracy)
        for pattern, probability in zip(patterns, found.posterior[:, 1].tolist(), strict=True):
            if probability > 0.5:
                present[pattern].append(name)
            least[pattern] = min(least[pattern], max(probability, 1 - probability))
    accuracy = np.mean(accuracies, axis=0) if accuracies else np.ones(len(names))
    return _Weighed(
        {pattern: (tuple(present[pattern]), least[pattern]) for pattern in patterns},
        dict(zip(names, accuracy.tolist(), strict=True)),
    )


def _estimate(
    patterns: Sequence[_Pattern],
    times: Mapping[_Pattern, int],
    names: Sequence[str],
    said: Sequence[int],
    classes: int,
) -> Estimate:
    number = {name: index for index, name in enumerate(names)}
    words = [(n, number[name], sure) for n, pattern in enumerate(patterns) for name, _, sure, _ in pattern]
    item, annotator, sure = zip(*words, strict=True)
    return dawid_skene(
        Words(
            item=np.array(item, np.int64),
            annotator=np.array(annotator, np.int64),
            said=np.array(said, np.int64),
            sure=np.array(sure, np.float64),
            times=np.array([times[pattern] for pattern in patterns], np.float64),
            annotators=len(names),
            classes=classes,
        )
    )
