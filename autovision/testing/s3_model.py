"""`CrashingMachine` for a store on S3, behind a proxy through which requests go wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from autovision.store import S3Store, Store
from autovision.store.s3 import S3Location, multipart
from autovision.store.s3.patience import Patience
from autovision.testing.faulty_proxy import FaultyProxy
from autovision.testing.store_model import CrashingMachine

QUICK = Patience(first_pause_s=0.002, longest_pause_s=0.02)
ONE_TRY = Patience(deadline_s=0, unreachable_s=0)


class S3Machine(CrashingMachine):
    """Runs within `faulty_s3`."""

    server: ClassVar[str]
    bucket: ClassVar[str]
    proxy: ClassVar[FaultyProxy]
    numbers: ClassVar[Iterator[int]] = itertools.count()

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


@contextmanager
def faulty_s3(server: str, bucket: str, *, rate: float = 0.15, seed: int = 0) -> Iterator[FaultyProxy]:
    """Where `S3Machine` runs: a share of `rate` of its requests goes wrong."""
    with (
        pytest.MonkeyPatch.context() as patch,
        FaultyProxy(server, rate=rate, seed=seed, stall_s=0.1) as proxy,
    ):
        # So that objects of a kilobyte go in parts, as those of many megabytes do.
        patch.setattr("autovision.store.s3.writing.THRESHOLD_BYTES", 1000)
        patch.setattr(multipart, "PART_BYTES", 600)
        S3Machine.server, S3Machine.bucket, S3Machine.proxy = server, bucket, proxy
        S3Machine.operations.clear()
        yield proxy
