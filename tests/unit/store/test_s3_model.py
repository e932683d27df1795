"""The S3 store, through faults and with writers that end in the middle, has the results that a dict would give."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from autovision.testing.s3_model import S3Machine, faulty_s3


@pytest.fixture(autouse=True)
def machinery(s3_server_url: str, make_bucket: Callable[[], str]) -> Iterator[None]:
    with faulty_s3(s3_server_url, make_bucket()):
        yield


TestS3Model = S3Machine.TestCase
TestS3Model.settings = settings(
    max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
