"""`autovision capture`: what is kept of requests."""

from __future__ import annotations

from typing import Any

from autovision.registry import deployments
from autovision.store import open_store


def test_what_is_kept_is_set_option_by_option(cli: Any, world: Any) -> None:
    assert cli("promote", world.model, "--to", "door").code == 0
    assert cli("capture", "policy", "door", "--json").answer == {"share": 1.0, "pixels": True}
    assert cli("capture", "policy", "door", "--share", 0.25, "--json").answer["share"] == 0.25
    shown = " ".join(cli("capture", "policy", "door", "--no-pixels").out.split())
    assert shown == "share 25% of the requests images no"
    kept = deployments.get(open_store(world.folder), "door").capture_policy
    assert (kept.share, kept.pixels) == (0.25, False)


def test_shares_beyond_all_and_unknown_deployments_are_refused(cli: Any, world: Any) -> None:
    assert cli("promote", world.model, "--to", "door").code == 0
    ran = cli("capture", "policy", "door", "--share", 1.5)
    assert ran.code == 2 and "--share" in ran.err
    assert cli("capture", "policy", "nowhere").code == 3
