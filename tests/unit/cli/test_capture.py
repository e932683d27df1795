"""`autovision capture`: what is kept of requests, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from autovision.records.base import now
from autovision.records.deployments import Capture
from autovision.registry import deployments
from autovision.store import captures, keys, open_store


@pytest.fixture
def door(cli: Any, world: Any) -> str:
    assert cli("promote", world.model, "--to", "door").code == 0
    return "door"


def shown(ran: Any) -> str:
    return " ".join(ran.out.split())


def test_what_is_kept_is_set_option_by_option(cli: Any, world: Any, door: str) -> None:
    plain = cli("capture", "policy", door, "--json").answer
    assert plain["share"] == 1.0 and plain["pixels"] is True and plain["keep_days"] is None
    assert cli("capture", "policy", door, "--share", 0.25, "--json").answer["share"] == 0.25
    ran = cli("capture", "policy", door, "--no-pixels")
    assert shown(ran).startswith("share 25% of the requests images no requests are kept for good")
    ran = cli("capture", "policy", door, "--keep-days", 90, "--keep-image-days", 14, "--keep-image-gb", 2.5)
    assert "requests are kept 90 days at most" in shown(ran)
    assert "images are kept 14 days at most, 2.5 GB at most" in shown(ran)
    assert cli("capture", "policy", door, "--keep-days", "none", "--json").answer["keep_days"] is None
    kept = deployments.get(open_store(world.folder), door).capture_policy
    assert (kept.share, kept.pixels, kept.keep_image_days) == (0.25, False, 14.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--share", 1.5], "--share"),
        (["--keep-days", 0], "--keep-days: Input should be greater than 0 (got '0')"),
        (["--keep-image-gb", "much"], "--keep-image-gb: Input should be a valid number"),
        (["--keep-requests", 20], "20 requests are to be kept, and drift in deployment 'door' is watched in"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    cli: Any, door: str, options: list[Any], said: str
) -> None:
    ran = cli("capture", "policy", door, *options, "--json")
    assert (ran.code, ran.out) == (2, "") and said in " ".join(ran.err.split())
    assert cli("capture", "policy", door, "--json").answer["keep_requests"] is None
    assert cli("capture", "policy", "nowhere").code == 3


def test_what_would_be_forgotten_is_told_before_it_is_deleted(cli: Any, world: Any, door: str) -> None:
    store, at = open_store(world.folder), now() - timedelta(days=3)
    capture = Capture(
        request_id=keys.timestamped_id(at),
        deployment=door,
        model=world.model,
        received_at=at,
        latency_ms=1.0,
        image="ab" * 32,
        image_bytes=1_500_000,
        label="cat",
        probabilities={"cat": 1.0},
        embedding=(0.5,),
    )
    store.put_new(captures.image_key(capture), b"an image")
    captures.append(store, door, [capture], at=at)
    assert "requests until (UTC) the policy keeps all" in shown(cli("capture", "forget", door))
    cli("capture", "policy", door, "--keep-days", 2)
    told = cli("capture", "forget", door)
    assert "would be deleted 1 requests, 1 images (1.5 MB)" in shown(told) and "--delete" in told.err
    assert captures.has_image(store, capture)
    done = cli("capture", "forget", door, "--delete", "--json").answer
    assert (done["deleted"], done["requests"], done["images"]) == (True, 1, 1)
    assert not captures.has_image(store, capture)
    assert captures.read(store, door).captures == ()
    assert cli("capture", "forget", door, "--delete", "--json").answer["requests"] == 0
