"""How good annotators are, and what is true, when neither is known: Dawid and Skene (1979).

Each annotator has a confusion matrix, each item one true class. Expectation maximization finds both: what is true,
given how good everybody is, and how good everybody is, given what is true. A Dirichlet prior on the rows of each matrix
(Kim & Ghahramani 2012) keeps the estimate sane where there are few words: nobody is judged by three of them.

An annotator is judged by items of which another one spoke, too. All other words say nothing about who is good. How
frequent a class is helps to judge annotators, and has no say in what is true of one item: with it each dispute between
equals would go to the frequent class, and the rare one is mostly what is looked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autovision.metrics import Floats, Ints

PRIOR_ACCURACY = 0.9
"""of an annotator of whom nothing is known"""
PRIOR_WORDS = 10.0
"""so many words the prior counts as, for each true class"""
_MOST_CELLS = 4_000_000
"""of all confusion matrices together; above, each annotator has one accuracy and errs towards all classes alike"""
_ROUNDS = 100
_STILL = 1e-4


@dataclass(frozen=True)
class Words:
    """Who said what of which item; arrays (W,) with one entry for each word.

    Attributes:
        item, annotator, said: indices; an annotator speaks once of an item.
        sure: 0 to 1: the word's log-likelihood counts so much, and so does the word in the annotator's matrix.
        times: (N,) how many items there are like item n, of which the same annotators said the same.
    """

    item: Ints
    annotator: Ints
    said: Ints
    sure: Floats
    times: Floats
    annotators: int
    classes: int


@dataclass(frozen=True)
class Estimate:
    """What came of it.

    Attributes:
        posterior: (N, C) probability of each class being an item's true one, all being equally likely beforehand.
        accuracy: (A,) expected share of an annotator's words that are right.
        compared: (A,) items of which the annotator and another one spoke.
    """

    posterior: Floats
    accuracy: Floats
    compared: Floats


def dawid_skene(words: Words) -> Estimate:
    """The truth and the annotators' accuracy, by expectation maximization from the share of votes.

    The result does not depend on the order of annotators or classes, nor, but for rounding, on that of words.
    C is at least 2.
    """
    several = np.bincount(words.item, minlength=len(words.times)) > 1
    judging = several[words.item]
    times = words.times[words.item[judging]]
    compared: Floats = np.bincount(words.annotator[judging], times, words.annotators).astype(np.float64)
    posterior = _votes(words)
    for _ in range(_ROUNDS):
        model, frequency = _Model.fit(words, judging, posterior), _frequency(words, posterior)
        successor = _expect(words, model, frequency)
        moved = float(np.abs(successor - posterior).max(initial=0.0))
        posterior = successor
        if moved < _STILL:
            break
    equally = np.full(words.classes, 1 / words.classes)
    return Estimate(_expect(words, model, equally), model.accuracy(frequency), compared)


def _frequency(words: Words, posterior: Floats) -> Floats:
    counts = 1.0 + words.times @ posterior
    shares: Floats = counts / counts.sum()
    return shares


def _votes(words: Words) -> Floats:
    votes = np.full((len(words.times), words.classes), 1e-3)
    np.add.at(votes, (words.item, words.said), words.sure)
    shares: Floats = votes / votes.sum(1, keepdims=True)
    return shares


@dataclass(frozen=True)
class _Model:
    """Of each annotator a confusion matrix (A, C true, C said), or one accuracy (A,)."""

    confusion: Floats | None
    coin: Floats

    @classmethod
    def fit(cls, words: Words, judging: NDArray[np.bool_], posterior: Floats) -> _Model:
        item, annotator, said = (each[judging] for each in (words.item, words.annotator, words.said))
        weight = words.sure[judging] * words.times[item]
        people, classes = words.annotators, words.classes
        right = np.bincount(annotator, weight * posterior[item, said], minlength=people)
        every = np.bincount(annotator, weight, minlength=people)
        coin = (PRIOR_ACCURACY * PRIOR_WORDS + right) / (PRIOR_WORDS + every)
        if people * classes**2 > _MOST_CELLS:
            return cls(None, coin)
        # Where there are many classes, a matrix learns its off-diagonal cells from what is left of the prior.
        counts = np.full((people, classes, classes), (1 - PRIOR_ACCURACY) * PRIOR_WORDS / (classes - 1))
        counts[:, np.arange(classes), np.arange(classes)] = PRIOR_ACCURACY * PRIOR_WORDS
        each = np.arange(classes)[None]
        np.add.at(counts, (annotator[:, None], each, said[:, None]), weight[:, None] * posterior[item])
        return cls(counts / counts.sum(2, keepdims=True), coin)

    def accuracy(self, frequency: Floats) -> Floats:
        """Of words on items whose classes are so frequent (C,)."""
        if self.confusion is None:
            return self.coin
        expected: Floats = np.diagonal(self.confusion, axis1=1, axis2=2) @ frequency
        return expected


def _expect(words: Words, model: _Model, frequency: Floats) -> Floats:
    log = np.tile(np.log(frequency), (len(words.times), 1))
    if model.confusion is not None:
        likely = np.log(model.confusion)[words.annotator, :, words.said]
        np.add.at(log, words.item, words.sure[:, None] * likely)
    else:
        right = model.coin[words.annotator]
        wrong = (1 - right) / (words.classes - 1)
        np.add.at(log, (words.item, words.said), words.sure * (np.log(right) - np.log(wrong)))
    shifted = np.exp(log - log.max(1, keepdims=True))
    posterior: Floats = shifted / shifted.sum(1, keepdims=True)
    return posterior
