"""The store on S3 where it is not like the others: lost answers, errors, large objects, copies, encryption."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import boto3
import pytest

from autovision.errors import CorruptObject, StoreUnavailable
from autovision.store import AlreadyExists, ETagMismatch, KeyNotFound, S3Store, keys, open_store
from autovision.store.s3 import S3Location, multipart, reading
from autovision.store.s3.client import Connection
from autovision.store.s3.patience import Patience
from autovision.testing.faulty_proxy import Fault, FaultyProxy

QUICK = Patience(deadline_s=5, read_s=0.2, first_pause_s=0.002, longest_pause_s=0.02)
SECRETS = ("AKIATESTTESTTEST0000", "a-secret-that-nobody-may-see")


@pytest.fixture(scope="module")
def bucket(make_bucket: Callable[[], str]) -> str:
    return make_bucket()


@pytest.fixture(scope="module")
def s3(s3_server_url: str, bucket: str) -> Any:
    """boto3's own view of the server."""
    return boto3.client("s3", endpoint_url=s3_server_url, region_name="us-east-1")


@pytest.fixture
def prefix(numbers: Iterator[int] = itertools.count()) -> str:  # noqa: B008 - one count for all tests
    return f"p{next(numbers)}"


@pytest.fixture
def proxy(s3_server_url: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_server_url, stall_s=0.4) as proxy:
        yield proxy


@pytest.fixture
def open_at(bucket: str, prefix: str) -> Callable[..., S3Store]:
    def open_at(url: str, query: str = "", **options: Any) -> S3Store:
        location = S3Location.parse(f"s3://{bucket}/{prefix}?region=us-east-1&endpoint={url}{query}")
        return S3Store(location, **{"patience": QUICK, **options})

    return open_at


@pytest.fixture
def store(open_at: Callable[..., S3Store], proxy: FaultyProxy) -> S3Store:
    return open_at(proxy.url)


def patience_that(act: Callable[[], object]) -> Patience:
    """Does something in the first pause, once: what another writer does between two tries."""
    left = [act]
    return Patience(
        deadline_s=5, read_s=0.2, first_pause_s=0.001, sleep=lambda _: left.pop()() and None if left else None
    )


# ------------------------------------------------------------------------------------------- lost answers


@pytest.mark.parametrize("fault", Fault)
def test_whatever_goes_wrong_once_each_operation_happens_once(
    store: S3Store, proxy: FaultyProxy, fault: Fault
) -> None:
    proxy.dictate(fault)
    first = store.put_new("a", b"one" * 1000)
    assert store.get("a") == (b"one" * 1000, first)
    proxy.dictate(fault)
    second = store.put_if("a", b"two" * 1000, first)
    proxy.dictate(fault)
    assert store.get("a") == (b"two" * 1000, second)
    with pytest.raises(ETagMismatch):
        store.put_if("a", b"three", first)
    proxy.dictate(fault)
    assert list(store.list()) == ["a"]
    proxy.dictate(fault, fault)
    with pytest.raises(AlreadyExists):
        store.put_new("a", b"other")
    proxy.dictate(fault)
    with pytest.raises(KeyNotFound):
        store.get("b")
    proxy.dictate(fault)
    assert store.exists("a") and not store.exists("b")
    proxy.dictate(fault)
    store.delete("a")
    proxy.settle()
    assert not store.exists("a")
    assert proxy.seen[fault] == 9


def test_a_lost_answer_counts_although_another_writer_went_on_from_there(
    open_at: Callable[..., S3Store], proxy: FaultyProxy, s3_server_url: str
) -> None:
    other = open_at(s3_server_url)
    store = open_at(
        proxy.url, patience=patience_that(lambda: other.put_if("a", b"theirs", other.get("a").etag))
    )
    proxy.dictate(Fault.RESET_AFTER)
    etag = store.put_new("a", b"ours")
    assert other.get("a").data == b"theirs"
    with pytest.raises(ETagMismatch):
        store.put_if("a", b"ours again", etag)


def test_a_request_that_was_not_carried_out_does_not_count(
    open_at: Callable[..., S3Store], proxy: FaultyProxy, s3_server_url: str
) -> None:
    other = open_at(s3_server_url)
    store = open_at(proxy.url, patience=patience_that(lambda: other.put_new("a", b"ours")))
    proxy.dictate(Fault.RESET_BEFORE)
    with pytest.raises(AlreadyExists):  # the very same bytes, but not this writer's
        store.put_new("a", b"ours")
    etag = other.get("a").etag
    store = open_at(proxy.url, patience=patience_that(lambda: other.put_if("a", b"theirs", etag)))
    proxy.dictate(Fault.ERROR_BEFORE)
    with pytest.raises(ETagMismatch):
        store.put_if("a", b"ours", etag)
    assert other.get("a").data == b"theirs"


def test_a_delete_whose_answer_is_lost_spares_what_came_after_it(
    open_at: Callable[..., S3Store], proxy: FaultyProxy, s3_server_url: str
) -> None:
    other = open_at(s3_server_url)
    other.put_new("a", b"old")
    store = open_at(proxy.url, patience=patience_that(lambda: other.put_new("a", b"new")))
    proxy.dictate(None, Fault.RESET_AFTER)  # a look at what is there, and its removal
    store.delete("a")
    assert other.get("a").data == b"new"
    etag = other.get("a").etag
    store = open_at(proxy.url, patience=patience_that(lambda: other.put_if("a", b"newer", etag)))
    proxy.dictate(None, Fault.RESET_BEFORE)
    store.delete("a")
    assert not other.exists("a"), "what was made of what was to be removed is still there"


def test_a_write_that_never_gets_an_answer_says_that_it_may_have_been_carried_out(
    open_at: Callable[..., S3Store], proxy: FaultyProxy
) -> None:
    store = open_at(proxy.url, patience=Patience(deadline_s=0.05, read_s=0.2, first_pause_s=0.01))
    proxy.rate, proxy.faults = 1.0, (Fault.ERROR_AFTER,)
    with pytest.raises(StoreUnavailable, match="not known whether") as failed:
        store.put_new("a", b"one")
    assert "check the server's state" in str(failed.value)
    proxy.rate = 0.0
    assert store.get("a").data == b"one"


# -------------------------------------------------------------------------------------------------- errors


def answer(status: int, code: str, *, headers: str = "") -> bytes:
    """What S3 says, in one piece; it names the key it was asked with, which nobody should read."""
    body = (
        f"<Error><Code>{code}</Code><Message>AKIATESTTESTTEST0000 may not</Message>"
        f"<AWSAccessKeyId>AKIATESTTESTTEST0000</AWSAccessKeyId></Error>"
    ).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "give this identity s3:ListBucket"),
        (403, "InvalidAccessKeyId", "check AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", "check AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", "sign in again"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "AuthorizationHeaderMalformed", "AWS_REGION or ?region="),
        (400, "KMS.DisabledException", "key of KMS"),
        (404, "NoSuchBucket", "create it"),
        (501, "NotImplemented", "conditional writes"),
    ],
)
def test_an_error_names_the_remedy_and_no_credential(
    store: S3Store, proxy: FaultyProxy, status: int, code: str, said: str
) -> None:
    proxy.dictate(*[answer(status, code)] * 3)
    with pytest.raises(StoreUnavailable) as failed:
        store.put_new("a", b"one")
    text = str(failed.value)
    assert failed.value.exit_code == 5
    assert code in text and said in text and store.uri in text and "'" in text
    assert not any(secret in text for secret in SECRETS)


def test_a_bucket_that_is_not_there(s3_server_url: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"no bucket 'no-such-bucket'.*aws s3 mb s3://no-such-bucket"):
        open_store(f"s3://no-such-bucket/x?endpoint={s3_server_url}")


def test_a_bucket_that_goes_away_is_not_an_empty_store(
    make_bucket: Callable[[], str], s3: Any, s3_server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autovision.store.s3.store._BUCKET_SEEN_S", 0.0)
    bucket = make_bucket()
    store = open_store(f"s3://{bucket}?region=us-east-1&endpoint={s3_server_url}")
    assert not store.exists("a")
    s3.delete_bucket(Bucket=bucket)
    with pytest.raises(StoreUnavailable, match="no bucket"):
        store.exists("a")


def test_no_credentials(s3_server_url: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreUnavailable, match="no credentials were found; give some as AWS_ACCESS_KEY_ID"):
        open_store(f"s3://{bucket}?endpoint={s3_server_url}")


def test_a_profile_that_is_not_there(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StoreUnavailable, match=r"nobody.*correct AWS_PROFILE"):
        open_store(f"s3://{bucket}")


def test_nobody_listens(bucket: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    location = S3Location.parse(f"s3://{bucket}?endpoint=http://127.0.0.1:{port}")
    with pytest.raises(StoreUnavailable, match=r"Could not connect.*check the address"):
        S3Store(location, patience=Patience(unreachable_s=0.05, first_pause_s=0.01))


def test_addresses_have_the_bucket_where_the_server_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def url(uri: str) -> str:
        client = Connection(S3Location.parse(uri), QUICK).client
        return str(client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"}))

    assert url("s3://bucket?region=eu-west-1").startswith("https://bucket.s3.")
    assert url("s3://bucket?endpoint=http://minio:9000").startswith("http://minio:9000/bucket/k")
    assert url("s3://bucket?endpoint=http://cdn.example&addressing=virtual").startswith("http://bucket.cdn.")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://minio:9000")
    assert url("s3://bucket").startswith("http://minio:9000/bucket/k")


# ------------------------------------------------------------------------------------------- large objects


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An object that takes five parts up, and four down."""
    monkeypatch.setattr("autovision.store.s3.writing.THRESHOLD_BYTES", 1000)
    monkeypatch.setattr(multipart, "PART_BYTES", 1000)
    monkeypatch.setattr(reading, "PART_BYTES", 1300)
    return hashlib.sha256(b"seed").digest() * 150


@pytest.mark.parametrize("fault", Fault)
def test_a_large_object_is_whole_or_not_there(
    store: S3Store, proxy: FaultyProxy, in_parts: bytes, fault: Fault, s3: Any
) -> None:
    key = keys.weights_file(hashlib.sha256(in_parts).hexdigest())
    proxy.rate, proxy.faults = 0.4, (fault,)
    store.put_immutable(key, in_parts)
    with pytest.raises(AlreadyExists):
        store.put_new(key, in_parts)
    store.cache.forget(store.cache.by_digest(keys.content_digest(key) or "", ".safetensors"))
    assert store.get(key).data == in_parts
    assert proxy.seen[fault] > 0
    proxy.rate = 0.0
    proxy.settle()
    assert s3.head_object(Bucket=store.location.bucket, Key=store.location.prefix + key)["ETag"].endswith(
        '-5"'
    )
    assert list(store.list()) == [key]


def test_parts_of_an_upload_that_broke_off_are_nobodys_object_and_are_removed(
    open_at: Callable[..., S3Store], proxy: FaultyProxy, in_parts: bytes, s3: Any, s3_server_url: str
) -> None:
    ends = open_at(proxy.url, patience=Patience(deadline_s=0, unreachable_s=0, read_s=0.2))
    proxy.rate, proxy.faults = 1.0, (Fault.CUT_UPLOAD,)
    proxy.dictate(Fault.TRICKLE, Fault.TRICKLE)  # of which the first looks, and the second begins the upload
    with pytest.raises(StoreUnavailable):
        ends.put_immutable("large", in_parts)
    store = open_at(s3_server_url)
    assert list(store.list()) == []
    unfinished = s3.list_multipart_uploads(Bucket=store.location.bucket, Prefix=store.location.prefix)
    assert len(unfinished["Uploads"]) == 1
    begun = unfinished["Uploads"][0]["Initiated"]
    assert store.remove_unfinished(begun - timedelta(hours=1)) == 0
    assert store.remove_unfinished(begun + timedelta(hours=1)) == 1


def test_an_object_that_changes_while_its_parts_are_read_is_read_anew(
    open_at: Callable[..., S3Store], s3_server_url: str, in_parts: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, etag = open_at(s3_server_url), ""
    part = reading.Reader._part

    def replaced(self: Any, *args: Any) -> None:
        if left:
            store.put_if("a", left.pop(), etag)
        part(self, *args)

    left = [in_parts[::-1]]
    etag = store.put_new("a", in_parts)
    monkeypatch.setattr(reading.Reader, "_part", replaced)
    assert store.get("a").data == in_parts[::-1]
    assert store.local_path("a").read_bytes() == in_parts[::-1]


# ------------------------------------------------------------------------------------- servers that are not S3


@pytest.mark.parametrize(
    ("unknown", "said"),
    [
        ("if-none-match", "If-None-Match"),
        ("if-match", "If-Match"),
        ("x-amz-meta-", "metadata"),
    ],
)
def test_a_server_that_keeps_to_no_conditions_is_found_before_anything_is_written(
    open_at: Callable[..., S3Store], s3_server_url: str, unknown: str, said: str
) -> None:
    with FaultyProxy(s3_server_url, dropped=[unknown]) as proxy:
        store = open_at(proxy.url, prove=True)
        assert not store.exists("a")
        with pytest.raises(StoreUnavailable, match=rf"{said}.*use one that knows conditional writes"):
            store.put_new("a", b"one")
    assert list(open_at(s3_server_url).list()) == []


@pytest.mark.parametrize("fault", [Fault.RESET_AFTER, Fault.ERROR_BEFORE, Fault.TWICE])
def test_a_server_that_does_is_asked_once(
    open_at: Callable[..., S3Store], proxy: FaultyProxy, fault: Fault
) -> None:
    store = open_at(proxy.url, prove=True)
    proxy.dictate(fault)
    etag = store.put_new("a", b"one")
    assert list(store.list()) == ["a"]
    asked = proxy.requests
    store.put_if("a", b"two", etag)
    assert proxy.requests == asked + 1


def test_a_store_that_is_opened_by_its_uri_asks(s3_server_url: str, bucket: str, prefix: str) -> None:
    with FaultyProxy(s3_server_url, dropped=["if-none-match"]) as proxy:
        store = open_store(f"s3://{bucket}/{prefix}?region=us-east-1&endpoint={proxy.url}")
        with pytest.raises(StoreUnavailable, match="If-None-Match"):
            store.put_new("a", b"one")


def test_parts_of_a_server_that_knows_no_ranges_are_not_put_together(
    open_at: Callable[..., S3Store], s3_server_url: str, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PART_BYTES", 1000)
    with FaultyProxy(s3_server_url, dropped=["range"]) as proxy:
        store = open_at(proxy.url, patience=Patience(deadline_s=0.05, read_s=0.2, first_pause_s=0.01))
        # Without a digest beside it: something else wrote it.
        s3.put_object(
            Bucket=store.location.bucket, Key=f"{store.location.prefix}a", Body=bytes(range(250)) * 20
        )
        with pytest.raises(StoreUnavailable, match="read"):
            store.get("a")


def test_an_answer_that_is_none_of_s3s_is_asked_for_again(store: S3Store, proxy: FaultyProxy) -> None:
    store.put_new("a", b"one")
    proxy.dictate(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n")
    assert store.exists("a")
    proxy.dictate(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nlog in!!!")
    assert store.get("a").data == b"one"


def test_a_listing_that_goes_on_nowhere_is_not_the_whole(store: S3Store, proxy: FaultyProxy) -> None:
    body = (
        b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<IsTruncated>true</IsTruncated></ListBucketResult>"
    )
    proxy.dictate(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    with pytest.raises(StoreUnavailable, match="and not where"):
        list(store.list())


# ------------------------------------------------------------------------------------------ copies, and age


def test_what_is_named_by_its_content_is_asked_for_once(
    store: S3Store, open_at: Callable[..., S3Store], proxy: FaultyProxy
) -> None:
    data = b"pixels" * 100
    key = keys.image(hashlib.sha256(data).hexdigest())
    open_at(proxy.url, cached=False).put_immutable(key, data)
    store.cache.forget(store.cache.by_digest(hashlib.sha256(data).hexdigest()))
    first = store.get(key)
    asked = proxy.requests
    assert store.get(key) == first and store.local_path(key).read_bytes() == data
    assert proxy.requests == asked
    assert open_at(proxy.url, cached=False).get(key) == first
    assert proxy.requests > asked + 1
    assert store.put_if(key, data, first.etag) == first.etag
    store.delete(key)
    with pytest.raises(KeyNotFound):
        store.get(key)


def test_bytes_that_are_not_those_that_were_written_are_an_error(store: S3Store, s3: Any) -> None:
    store.put_new("a", b"one")
    name = f"{store.location.prefix}a"
    head = s3.head_object(Bucket=store.location.bucket, Key=name)
    s3.put_object(Bucket=store.location.bucket, Key=name, Body=b"two", Metadata=head["Metadata"])
    for read in (store.get, store.local_path):
        with pytest.raises(CorruptObject, match=r"'.*a'.*instead of"):
            read("a")


def test_an_immutable_object_that_is_found_in_place_becomes_young(
    open_at: Callable[..., S3Store], s3_server_url: str, proxy: FaultyProxy, s3: Any
) -> None:
    data = b"pixels"
    key = keys.image(hashlib.sha256(data).hexdigest())
    later = open_at(proxy.url, clock=lambda: time.time() + 7200)
    open_at(s3_server_url).put_immutable(key, data)
    asked = proxy.requests
    open_at(proxy.url).put_immutable(key, data)
    assert proxy.requests == asked + 2, "the bucket, and a look"
    later.put_immutable(key, data)
    assert proxy.requests == asked + 4, "a look, and a copy onto itself"
    assert open_at(s3_server_url, cached=False).get(key).data == data


def test_objects_of_others_are_left_alone(store: S3Store, s3: Any) -> None:
    store.put_new("a", b"one")
    for name in ("folder/", "x//y", "../z"):
        s3.put_object(Bucket=store.location.bucket, Key=store.location.prefix + name, Body=b"")
    s3.put_object(Bucket=store.location.bucket, Key=store.location.prefix.rstrip("/") + "-other/a", Body=b"")
    assert list(store.list()) == ["a"]


def test_encryption_is_asked_for(open_at: Callable[..., S3Store], s3_server_url: str, s3: Any) -> None:
    store = open_at(s3_server_url, "&sse=aws:kms&kms-key=alias/vision&bucket-key=true")
    store.put_new("a", b"one")
    store.touch("a")
    head = s3.head_object(Bucket=store.location.bucket, Key=f"{store.location.prefix}a")
    assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", "alias/vision")


def test_a_store_can_be_sent_to_another_process(store: S3Store) -> None:
    store.put_new("a", b"one")
    again = pickle.loads(pickle.dumps(store))
    assert again.uri == store.uri and again.get("a").data == b"one"
