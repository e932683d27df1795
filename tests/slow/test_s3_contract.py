"""The contract of every store, on S3 through a proxy where one request in twenty goes wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from autovision.store import S3Store, Store
from autovision.store.s3 import S3Location
from autovision.store.s3.patience import Patience
from autovision.testing.faulty_proxy import Fault, FaultyProxy
from autovision.testing.s3_server import s3_server
from autovision.testing.store_contract import StoreContract

pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyProxy]:
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="contract")
        with FaultyProxy(url, rate=0.05, stall_s=0.3) as proxy:
            yield proxy
        assert set(proxy.seen) == set(Fault), "not every fault was met"


class TestS3StoreThroughFaults(StoreContract):
    rounds = 4

    @pytest.fixture
    def make_store(self, proxy: FaultyProxy, tmp_path: Path) -> Callable[[], Store]:
        quick = Patience(read_s=1.0, first_pause_s=0.005, longest_pause_s=0.1)

        def make() -> Store:
            place = f"s3://contract/c{next(_numbers)}?region=us-east-1&endpoint={proxy.url}"
            return S3Store(S3Location.parse(place), patience=quick)

        return make


_numbers = itertools.count()
