"""The S3 store, through faults and with writers that end in the middle, has the results that a dict would give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from autovision.store import S3Store, Store
from autovision.store.s3 import S3Location, multipart
from autovision.store.s3.patience import Patience
from autovision.testing.faulty_proxy import FaultyProxy
from autovision.testing.store_model import CrashingMachine

QUICK = Patience(read_s=0.3, first_pause_s=0.002, longest_pause_s=0.02)
ONE_TRY = Patience(deadline_s=0, unreachable_s=0, read_s=0.3)


class S3Machine(CrashingMachine):
    server: ClassVar[str]
    bucket: ClassVar[str]
    proxy: ClassVar[FaultyProxy]
    numbers = itertools.count()

    def make_store(self) -> Store:
        self.place = f"s3://{self.bucket}/m{next(self.numbers)}?region=us-east-1&endpoint="
        self.calm = S3Store(S3Location.parse(self.place + self.server), patience=QUICK)
        self.hasty = self._through_faults(ONE_TRY)
        return self.reopened()

    def reopened(self) -> Store:
        return self._through_faults(QUICK)

    def settle(self) -> None:
        self.proxy.settle()

    def _through_faults(self, patience: Patience) -> Store:
        rate, self.proxy.rate = self.proxy.rate, 0.0
        try:
            return S3Store(S3Location.parse(self.place + self.proxy.url), patience=patience)
        finally:
            self.proxy.rate = rate


@pytest.fixture(autouse=True)
def machinery(
    s3_server_url: str, make_bucket: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    # So that objects of a kilobyte go in parts, as those of many megabytes do.
    monkeypatch.setattr("autovision.store.s3.writing.THRESHOLD_BYTES", 1000)
    monkeypatch.setattr(multipart, "PART_BYTES", 600)
    with FaultyProxy(s3_server_url, rate=0.15, stall_s=0.1) as proxy:
        S3Machine.server, S3Machine.bucket, S3Machine.proxy = s3_server_url, make_bucket(), proxy
        yield


TestS3Model = S3Machine.TestCase
TestS3Model.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
