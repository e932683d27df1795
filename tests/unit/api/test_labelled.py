"""Labels by the Python API, of a deployment that has no model yet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from PIL import Image

from autovision.api import AutoVision
from autovision.api.labelled import Word
from autovision.dataset.importer import import_dataset
from autovision.errors import InvalidInput
from autovision.labelling.consensus import consensus
from autovision.records.base import now
from autovision.registry import deployments
from autovision.store import MemoryStore, labels
from autovision.store.labels import News


class Counted(list[str]):
    """Names that count how often they are gone through."""

    times = 0

    def __iter__(self) -> Iterator[str]:
        self.times += 1
        return super().__iter__()


@pytest.fixture
def av(tmp_path: Path) -> AutoVision:
    """Cats and dogs, and a deployment `door` of them."""
    for label, red in (("cat", 10), ("dog", 200)):
        (tmp_path / label).mkdir()
        for number in range(12):
            Image.new("RGB", (16, 16), (red, 5 * number, 90)).save(tmp_path / label / f"{number}.png")
    store = MemoryStore()
    import_dataset(store, tmp_path, "pets", seed=0)
    deployments.create(store, "door", "pets", {})
    return AutoVision(store)


def stands(av: AutoVision) -> dict[str, object]:
    agreed = consensus(labels.read(av.store, "door")).agreed
    return {request: label.label for request, label in agreed.items()}


def test_a_time_without_its_zone_is_refused_and_the_others_are_stored(av: AutoVision) -> None:
    naive, aware = datetime(2026, 1, 2, 3, 4), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    words = [Word("r1", "cat", said_at=aware), Word("r2", "cat", said_at=naive), Word("r3", "dog")]
    first, refused, last = av.feedback_many("door", words)
    assert (first, last) == (News.STORED, News.STORED)
    assert isinstance(refused, InvalidInput)
    assert "said_at 2026-01-02T03:04:00" in str(refused) and "time zone" in str(refused)
    assert stands(av) == {"r1": "cat", "r3": "dog"}


def test_words_that_are_given_in_parts_are_one_whole(av: AutoVision) -> None:
    parts = [[Word("r1", "cat"), Word("r1", "dog")], [Word("r1", "cat")]]
    began = now()
    told = [av.feedback_many("door", part, began=began) for part in parts]
    assert told == [[News.STORED, News.STORED], [News.STORED]]
    assert av.feedback("door", "r1", "dog"), "who says it now has changed their mind"
    began = now() + timedelta(microseconds=1)
    again = [av.feedback_many("door", part, began=began) for part in parts]
    assert again == [[News.OUTDATED, News.KNOWN], [News.OUTDATED]]
    assert stands(av) == {"r1": "dog"}


def test_the_classes_are_gone_through_once_for_all_words(av: AutoVision) -> None:
    few, many = Counted(["cow"]), Counted(["cow"])
    assert av.feedback_many("door", [Word("r1", "cow")], new_classes=few) == [News.STORED]
    words = [Word(f"r{number}", "cow") for number in range(2, 9)]
    assert av.feedback_many("door", words, new_classes=many) == [News.STORED] * 7
    assert many.times == few.times > 0


def test_a_date_of_long_ago_is_a_slip(av: AutoVision) -> None:
    zone = timezone(timedelta(hours=9))
    slip = Word("r1", "cat", said_at=datetime(1, 1, 1, tzinfo=zone))
    refused, stored = av.feedback_many("door", [slip, Word("r2", "dog")])
    assert "before 1970" in str(refused) and stored is News.STORED
