from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone

import pytest

from autovision.errors import InvalidInput
from autovision.serving.schema import REQUEST_ID
from autovision.store import keys

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_ids_of_one_microsecond_sort_by_creation() -> None:
    made = [keys.timestamped_id(NOON) for _ in range(1000)]
    assert made == sorted(set(made))


def test_ids_sort_by_their_time_wherever_that_was_told() -> None:
    tokyo = timezone(timedelta(hours=9))
    times = [NOON + timedelta(microseconds=step) for step in range(-2, 3)]
    made = [keys.timestamped_id(at.astimezone(tokyo) if i % 2 else at) for i, at in enumerate(times)]
    assert made == sorted(made)
    assert made[2].startswith("20260301T120000.000000-")


def test_ids_that_threads_make_at_once_differ() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: keys.timestamped_id(NOON), range(400)))
    assert len(set(made)) == 400


def test_an_id_has_the_form_that_the_server_takes_back() -> None:
    made = keys.timestamped_id(NOON)
    assert REQUEST_ID.fullmatch(made)
    assert keys.check_request_id(made) == made
    assert keys.timestamped_id(NOON + timedelta(days=1)) != made


@pytest.mark.parametrize("name", ["", ".", "a/b", "-a", "a-", "a..b", "a b", "é", "x" * 65])
def test_a_name_that_cannot_be_part_of_a_key_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match=r"the thing .* is not a valid name; use 1 to 64"):
        keys.check_name(name, what="the thing")
    assert keys.check_name("a", what="the thing") == "a"


def test_keys_of_what_is_named_by_its_content_tell_its_digest() -> None:
    digest = "0123456789abcdef" * 4
    named = (
        keys.image(digest),
        keys.weights_file(digest),
        keys.model_file("m-1", "model.safetensors", digest),
        keys.feature_shard("ab" * 12, digest, 100),
        keys.captured_image("door", "20260301T120000.000000-1a2b3c", digest, 100),
        keys.window_rows("door", digest),
    )
    assert [keys.content_digest(key) for key in named] == [digest] * 6
    others = (
        f"images/{digest}",
        f"d/{digest}",
        keys.image(digest + "0"),
        keys.model("m-1"),
        keys.dataset_manifest("pets", digest),
        keys.evaluation("m-1", digest, "test"),
        keys.reference_part("m-1", digest),
    )
    assert [keys.content_digest(key) for key in others] == [None] * 7
