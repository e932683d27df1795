"""What is no longer kept goes, what is labelled stays, and whoever reads or writes meanwhile notices nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from autovision.records.deployments import Capture, CapturePolicy, Label
from autovision.store import MemoryStore, Store, captures, keys, labels
from autovision.store.retention import Forgotten, forget

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


def picture(number: int) -> bytes:
    return bytes([number]) * 1000


def fill(store: Store, *, days: int = 10, each: int = 4, deployment: str = "plant") -> list[Capture]:
    """One file of captures with images a day, the latest at noon; the earliest first."""
    made = []
    for day in range(days):
        batch = []
        for number in range(each):
            at = NOON - (days - 1 - day) * DAY + timedelta(seconds=number - each)
            data = picture(day * each + number)
            batch.append(
                Capture(
                    request_id=keys.timestamped_id(at),
                    deployment=deployment,
                    model="solar-1",
                    received_at=at,
                    latency_ms=1.0,
                    image=hashlib.sha256(data).hexdigest(),
                    image_bytes=len(data),
                    label="good",
                    probabilities={"good": 1.0},
                    embedding=(0.5,),
                )
            )
            store.put_immutable(captures.image_key(batch[-1]), data)
        captures.append(store, deployment, batch, at=batch[-1].received_at)
        made += batch
    return made


def label(store: Store, capture: Capture, *, at: datetime = NOON) -> None:
    labels.add(store, "plant", Label(request_id=capture.request_id, label="bad", received_at=at))


def run(store: Store, delete: bool = True, at: datetime = NOON, **limits: float) -> Forgotten:
    return forget(store, "plant", CapturePolicy.model_validate(limits), at, delete=delete)


def left(store: Store) -> list[str]:
    return [capture.request_id for capture in captures.read(store, "plant").captures]


def with_images(store: Store, made: list[Capture]) -> list[Capture]:
    return [capture for capture in made if captures.has_image(store, capture)]


def ids(made: list[Capture]) -> list[str]:
    return [capture.request_id for capture in made]


def contents(store: Store) -> dict[str, bytes]:
    return {key: store.get(key).data for key in store.list()}


@pytest.mark.parametrize(
    ("limits", "requests", "images"),
    [
        ({}, 40, 40),
        ({"keep_days": 2.5}, 12, 12),
        ({"keep_requests": 8}, 8, 8),
        ({"keep_requests": 9}, 12, 12),
        ({"keep_days": 2.5, "keep_requests": 100}, 12, 12),
        ({"keep_image_days": 2.5}, 40, 12),
        ({"keep_image_gb": 6e-6}, 40, 6),
        ({"keep_days": 4.5, "keep_image_days": 2.5, "keep_image_gb": 7e-6}, 20, 7),
        ({"keep_days": 1e6, "keep_image_gb": 1.0}, 40, 40),
    ],
)
def test_each_limit_leaves_the_latest(limits: dict[str, float], requests: int, images: int) -> None:
    store = MemoryStore()
    made = fill(store)
    before = contents(store)
    told = run(store, delete=False, **limits)
    assert contents(store) == before, "telling deletes nothing"
    done = run(store, **limits)
    assert (told.requests, told.images, told.image_bytes) == (done.requests, done.images, done.image_bytes)
    assert (done.requests, done.images) == (40 - requests, 40 - images)
    assert done.image_bytes == 1000 * done.images and done.complete
    assert left(store) == ids(made[40 - requests :])
    assert with_images(store, made) == made[40 - images :]
    after = contents(store)
    assert not run(store, **limits).any and contents(store) == after, "once more changes nothing"


def test_what_is_labelled_stays_with_its_image_and_is_not_looked_at_again(store: Store) -> None:
    made = fill(store)
    chosen = [made[0], made[2], made[5]]
    for capture in chosen:
        label(store, capture)
    done = run(store, keep_days=2.5)
    assert (done.requests, done.labelled) == (25, 3)
    assert (done.images, done.labelled_images) == (25, 3)
    assert left(store) == ids([*chosen, *made[28:]])
    assert with_images(store, made) == [*chosen, *made[28:]]
    assert [captures.read_image(store, capture) for capture in chosen] == [picture(n) for n in (0, 2, 5)]
    again = run(store, keep_days=2.5)
    assert (again.requests, again.labelled, again.any) == (0, 0, False)


def test_the_images_of_data_sets_are_not_touched_and_not_kept_twice() -> None:
    store = MemoryStore()
    made = fill(store)
    label(store, made[0])
    for capture in made[:2]:
        store.put_immutable(keys.image(capture.image), captures.read_image(store, capture))
    assert run(store, keep_days=2.5).labelled_images == 0
    assert not store.exists(captures.image_key(made[0]))
    assert captures.read_image(store, made[0]) == picture(0)
    assert store.get(keys.image(made[1].image)).data == picture(1)
    # One is where data sets have theirs, one where it was captured, one is gone, and one was sent twice.
    twice = made[-1].model_copy(update={"request_id": made[-1].request_id + "x"})
    some = dict(captures.read_images(store, [made[0], made[-2], made[4], twice, made[-1]]))
    assert some == {
        made[0].image: picture(0),
        made[-2].image: picture(len(made) - 2),
        made[-1].image: picture(len(made) - 1),
    }


def test_other_deployments_and_captures_of_before_keep_theirs() -> None:
    store = MemoryStore()
    others = fill(store, deployment="other")
    old = others[0].model_copy(
        update={"deployment": "plant", "image_bytes": None, "request_id": keys.timestamped_id(NOON - 9 * DAY)}
    )
    store.put_immutable(keys.image(old.image), picture(0))
    captures.append(store, "plant", [old], at=NOON - 9 * DAY)
    done = run(store, keep_days=2.5)
    assert (done.requests, done.images) == (1, 0)
    assert store.get(keys.image(old.image)).data == picture(0)
    assert len(captures.read(store, "other").captures) == len(with_images(store, others)) == 40


def test_a_damaged_file_stays_and_is_named() -> None:
    store = MemoryStore()
    made = fill(store, days=4)
    files = list(store.list(keys.captures("plant")))
    store.put_if(files[0], b"no parquet", store.get(files[0]).etag)
    done = run(store, keep_days=0.5)
    assert [problem.key for problem in done.problems] == [files[0]]
    assert store.exists(files[0]) and left(store) == ids(made[12:])


def test_a_large_amount_goes_in_parts() -> None:
    store = MemoryStore()
    made = fill(store)
    policy = CapturePolicy(keep_days=2.5)
    parts = 0
    while not forget(store, "plant", policy, NOON, delete=True, most=10).complete:
        parts += 1
    assert parts >= 4 and left(store) == ids(made[28:]) == ids(with_images(store, made))


class Killed(Exception):
    pass


class Fragile(MemoryStore):
    """A store whose user is killed before one of its writes, or which does something else first."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.before: Callable[[int], None] = lambda number: None

    def _count(self) -> None:
        self.writes += 1
        self.before(self.writes)

    def put_new(self, key: str, data: bytes) -> str:
        self._count()
        return super().put_new(key, data)

    def put_if(self, key: str, data: bytes, etag: str) -> str:
        self._count()
        return super().put_if(key, data, etag)

    def put_immutable(self, key: str, data: bytes) -> None:
        self._count()
        super().put_immutable(key, data)

    def delete(self, key: str) -> None:
        self._count()
        super().delete(key)


def test_killed_at_any_write_nothing_labelled_is_lost_and_the_next_one_finishes() -> None:
    kill_at = 0
    while True:
        kill_at += 1
        store = Fragile()
        made = fill(store, days=3, each=2)
        chosen = [made[0], made[3]]
        for capture in chosen:
            label(store, capture)

        def kill(number: int, begun: int = store.writes, at: int = kill_at) -> None:
            if number == begun + at:
                raise Killed

        store.before = kill
        try:
            run(store, keep_days=0.5)
        except Killed:
            store.before = lambda number: None
            assert set(ids(chosen)) <= set(left(store)), kill_at
            assert all(captures.has_image(store, capture) for capture in chosen)
            run(store, keep_days=0.5)
        else:
            break
        assert left(store) == ids([*chosen, *made[4:]])
        assert with_images(store, made) == [*chosen, *made[4:]]
    assert kill_at > 6


def test_a_label_that_comes_in_meanwhile_brings_its_request_and_image_back() -> None:
    store = Fragile()
    made = fill(store, days=2, each=2)
    deletes = 0

    plain_delete = store.delete

    def delete(key: str) -> None:
        nonlocal deletes
        plain_delete(key)
        deletes += 1
        if deletes == 1:  # the file of rows is gone
            label(store, made[0])
        if keys.captured_image_of(key) is not None and made[1].request_id in key:
            label(store, made[1])

    store.delete = delete  # type: ignore[method-assign]
    run(store, keep_days=0.5)
    assert left(store) == ids([made[0], *made[2:]])
    assert with_images(store, made) == made, "both images are labelled now; the second one's row is gone"


def test_a_reader_that_listed_a_file_before_finds_the_labelled_rows_where_they_went() -> None:
    store = MemoryStore()
    made = fill(store, days=2, each=2)
    label(store, made[1])
    listed = list(store.list(keys.captures("plant")))
    run(store, keep_days=0.5)
    store.list = lambda prefix="": iter(listed)  # type: ignore[method-assign]
    found = captures.read(store, "plant")
    assert ids(list(found.captures)) == ids(made[1:]) and found.problems == ()
