"""The whole product on S3: import, search, promote, serve, feedback, the controller, and looking after the store.

It takes a minute of one core.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from autovision import AutoVision, runtime
from autovision.records.deployments import DecisionKind
from autovision.serving.client import Client
from autovision.store import S3Store, captures, keys, open_store
from autovision.testing.s3_server import s3_server
from autovision.upkeep.check import check
from autovision.upkeep.transfer import copy
from tests.integration.conftest import Tiny, draw

SECRET = "a-secret-that-nobody-may-see"


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An empty store, and a Ray whose workers can reach it."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIATESTTESTTEST0000")
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="plant")
        with runtime.connected():
            yield f"s3://plant/prod?region=us-east-1&endpoint={url}"


def test_the_loop_turns_on_s3(uri: str, tmp_path: Path) -> None:
    av, tiny = AutoVision(uri), Tiny()
    for number in range(140):
        name = ("red", "blue")[number % 2]
        draw(tmp_path / "images" / name / f"{number}.png", number % 2, number)
    av.import_dataset(tmp_path / "images", "colours", seed=0)
    av.create_deployment("door", "colours", tiny)
    av.search("colours", space=tiny, budget_s=60, seed=0, max_trials=2, deployment="door", wait=False)
    for event in av.controller().run(once=True):
        assert event.stage != "error", event.text
    assert [each.kind for each in av.decisions("door") if each.accepted] == [DecisionKind.PROMOTE]
    model = av.model("door")

    draw(tmp_path / "new.png", 0, 90_000)
    with av.serve("door", port=0, cpus=0) as server, Client(server.url) as client:
        answer = client.predict((tmp_path / "new.png").read_bytes())
        assert (answer.model, answer.label) == (model.id, "red")
        server.flush()
        assert client.feedback(answer.request_id, "red").new == 1
    assert [each.request_id for each in captures.read(av.store, "door").captures] == [answer.request_id]

    store = av.store
    assert isinstance(store, S3Store)
    features = next(store.list(keys.FEATURES))
    assert store.local_path(features).is_relative_to(store.cache.folder), "mapped from this node's copy"
    report = check(open_store(uri, cached=False))
    assert report.sound, (report.damaged, report.dangling)
    copied = copy(store, open_store(tmp_path / "copy"))
    assert copied.problems == ()
    assert AutoVision(tmp_path / "copy").model("door") == model
    assert not any(SECRET.encode() in store.get(key).data for key in store.list() if key.endswith(".json"))
