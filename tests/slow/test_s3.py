"""More than 10,000 random operations on S3 through faults, with writers that end in the middle: no violation.

Measured on two busy cores: 10,179 steps (232 of them opened a new store), 18,099 requests, of which 1,865 met a fault,
some 160 of each kind; 314 writers ended without knowing what became of their write; 20 minutes.
"""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from autovision.testing.faulty_proxy import Fault
from autovision.testing.s3_model import S3Machine, faulty_s3
from autovision.testing.s3_server import s3_server

pytestmark = pytest.mark.timeout(5400)

OPERATIONS = 10_500
"""with the first of each run, which only opens a store"""
STEPS = 50


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with s3_server() as url:
        boto3.client("s3", endpoint_url=url, region_name="us-east-1").create_bucket(Bucket="model")
        yield url


def test_ten_thousand_operations_through_faults_and_crashes(
    server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with faulty_s3(server, "model", rate=0.12) as proxy:
        while S3Machine.operations["all"] < OPERATIONS:
            with capsys.disabled():
                print(dict(S3Machine.operations), flush=True)
            run_state_machine_as_test(
                S3Machine,
                settings=settings(
                    max_examples=8,
                    stateful_step_count=STEPS,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        with capsys.disabled():
            counts = ", ".join(f"{name} {count}" for name, count in S3Machine.operations.items())
            faults = ", ".join(f"{fault.name} {count}" for fault, count in proxy.seen.items())
            print(f"\noperations: {counts}; requests {proxy.requests}; faults: {faults}")
        assert set(proxy.seen) == set(Fault)
        assert S3Machine.operations["in doubt"] > 100
