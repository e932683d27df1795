"""The URI of a store on S3: what it says, and what it must never hold."""

from __future__ import annotations

import pytest

from autovision.errors import InvalidInput
from autovision.store.s3 import S3Location


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket",
        "s3://bucket/team/vision",
        "s3://bucket/a%20b%3F?region=eu-central-1",
        "s3://bucket/x?endpoint=http://minio:9000&addressing=virtual",
        "s3://bucket?sse=aws:kms&kms-key=arn:aws:kms:eu-west-1:1:key/ab&bucket-key=true",
    ],
)
def test_a_uri_comes_back_as_it_was(uri: str) -> None:
    location = S3Location.parse(uri)
    assert location.uri == uri
    assert S3Location.parse(location.uri) == location


def test_what_a_uri_says() -> None:
    location = S3Location.parse("S3://bucket/team/vision/?sse=aws:kms&kms-key=k&bucket-key=true")
    assert (location.bucket, location.prefix) == ("bucket", "team/vision/")
    assert location.encryption() == {
        "ServerSideEncryption": "aws:kms",
        "SSEKMSKeyId": "k",
        "BucketKeyEnabled": True,
    }
    assert S3Location.parse("s3://bucket").encryption() == {}


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://", "bucket ''"),
        ("s3://b", "bucket 'b'"),
        ("s3://bucket/a/../b", "prefix that no key can have"),
        ("s3://bucket/" + "x/" * 300 + "x", "512 are allowed"),
        ("s3://bucket#x", "'#'"),
        ("s3://bucket?regoin=a", "did you mean 'region'"),
        ("s3://bucket?region=", "without a value"),
        ("s3://bucket?sse=kms", "AES256, aws:kms"),
        ("s3://bucket?kms-key=k", "without sse=aws:kms"),
        ("s3://bucket?endpoint=minio:9000", "http://HOST:PORT"),
    ],
)
def test_what_makes_no_sense_is_refused(uri: str, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        S3Location.parse(uri)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA0000:hush@bucket/x",
        "s3://bucket?secret=hush",
        "s3://bucket?endpoint=http://AKIA0000:hush@minio:9000",
    ],
)
def test_credentials_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(InvalidInput, match=r"[Cc]redentials") as refused:
        S3Location.parse(uri)
    assert "hush" not in str(refused.value) and "AKIA0000" not in str(refused.value)
