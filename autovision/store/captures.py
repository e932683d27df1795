"""Captured requests: one Parquet file per batch, named by the time at which it was written.

Columns: request_id, deployment, model, image: string; label: string, or null and labels: list<string> where a model
answers any number of classes; received_at: timestamp[us, UTC]; latency_ms: double; probabilities: map<string, double>;
embedding: list<float> (32 bits, to which embeddings are rounded); metadata: map<string, string>; shadow: string, a
ShadowAnswer in JSON, or null; pixels: bool, whether the image was kept, too; image_bytes: int64, its size, or null.
Pages carry checksums. Images are objects of their own, one for each request, so that they can be deleted by themselves:
see `autovision.store.retention`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from autovision.errors import InvalidInput
from autovision.records.deployments import Capture, ShadowAnswer
from autovision.store import keys
from autovision.store.bulk import put_many_immutable
from autovision.store.protocol import AlreadyExists, ETagMismatch, KeyNotFound, Store

if TYPE_CHECKING:
    import pyarrow as pa

_LATER = ("labels", "shadow", "pixels", "image_bytes")
"""columns that older files do not have"""


@dataclass(frozen=True)
class CaptureProblem:
    """A file of captures that could not be read, and why."""

    key: str
    message: str


@dataclass(frozen=True)
class CaptureRead:
    """What `read` found."""

    captures: tuple[Capture, ...]
    """ordered by `received_at`"""
    problems: tuple[CaptureProblem, ...]
    """one per file that was skipped"""


def append(store: Store, deployment: str, captures: Sequence[Capture], *, at: datetime) -> str:
    """Store a batch that is complete at the time `at`; the key of its file.

    Raises `InvalidInput` for an empty batch or for a capture of another deployment.
    """
    if not captures:
        raise InvalidInput("a batch of captures has to hold at least one; leave empty batches out")
    strangers = {capture.deployment for capture in captures} - {deployment}
    if strangers:
        raise InvalidInput(
            f"captures of deployment {min(strangers)!r} cannot be stored under {deployment!r}; "
            "append them to their own"
        )
    # The name bounds the times within, so that `read` can leave old files closed.
    last = max(at, *(capture.received_at for capture in captures)).astimezone(UTC)
    key = keys.capture_file(deployment, keys.timestamped_id(last))
    store.put_new(key, _to_parquet(captures))
    return key


def read(store: Store, deployment: str, *, after: datetime | None = None) -> CaptureRead:
    """The captures of a deployment that were received later than `after` (None: all), by `received_at`.

    A batch stored twice counts once. A file that cannot be read is skipped and named in `problems`.
    Requests are captured in batches by several replicas: one may turn up after a later one was read.
    """
    captures: dict[tuple[datetime, str], Capture] = {}
    problems = []
    for key in files(store, deployment, after=after):
        try:
            found = read_file(store, key)
        except Unreadable as error:
            problems.append(CaptureProblem(key, str(error)))
            continue
        for capture in found:
            if after is None or capture.received_at > after:
                captures[capture.received_at, capture.request_id] = capture
    return CaptureRead(tuple(captures[which] for which in sorted(captures)), tuple(problems))


def each(store: Store, deployment: str, *, after: datetime | None = None) -> Iterator[Capture]:
    """The same in no order, one file in memory at a time; what is stored twice comes twice, no faults are told."""
    for key in files(store, deployment, after=after):
        with suppress(Unreadable):
            for capture in read_file(store, key):
                if after is None or capture.received_at > after:
                    yield capture


def files(store: Store, deployment: str, *, after: datetime | None = None) -> Iterator[str]:
    """The keys of files of captures, but for those that hold none received later than `after`."""
    for key in store.list(keys.captures(deployment)):
        if after is None or not _ends_by(key, after):
            yield key


def request_ids(store: Store, deployment: str) -> set[str]:
    """The ids of all captured requests; nothing else of them is read. Files that cannot be read are left out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: set[str] = set()
    for key in store.list(keys.captures(deployment)):
        with suppress(KeyNotFound, pa.ArrowException, OSError, KeyError):
            data = pa.BufferReader(store.get(key).data)
            found.update(pq.read_table(data, columns=["request_id"]).column("request_id").to_pylist())
    return found


class Unreadable(Exception):
    """A file is not a Parquet file of captures."""


def read_file(store: Store, key: str) -> list[Capture]:
    """The captures of one file; those that stayed if it was deleted meanwhile. Raises `Unreadable`."""
    for each in (key, keys.kept_captures(key)):
        try:
            return _from_parquet(store.get(each).data)
        except KeyNotFound:
            continue
    return []


def count(store: Store, key: str) -> int:
    """How many captures a file holds, of which only the end is read; 0 of one that is gone or cannot be read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.read_metadata(store.local_path(key)).num_rows)
    except (KeyNotFound, pa.ArrowException, OSError):
        return 0


def keep(store: Store, key: str, kept: Sequence[Capture]) -> None:
    """Store captures of a file that stay when it is deleted, beside those that stay already.

    Several processes may do so at once.
    """
    if not kept:
        return
    target = keys.kept_captures(key)
    while True:
        try:
            data, etag = store.get(target)
        except KeyNotFound:
            try:
                store.put_new(target, _to_parquet(kept))
            except AlreadyExists:
                continue
            return
        before = {capture.request_id: capture for capture in _from_parquet(data)}
        after = before | {capture.request_id: capture for capture in kept}
        if after == before:
            return
        try:
            store.put_if(target, _to_parquet(after.values()), etag)
        except ETagMismatch:
            continue
        return


# ------------------------------------------------------------------------------------------------- images


def image_key(capture: Capture) -> str:
    """Where the image of a captured request is stored."""
    if capture.image_bytes is None:
        return keys.image(capture.image)
    return keys.captured_image(capture.deployment, capture.request_id, capture.image, capture.image_bytes)


def has_image(store: Store, capture: Capture) -> bool:
    """Whether the image is there: with the captures, or in a data set that holds the same one."""
    return capture.pixels and (store.exists(image_key(capture)) or store.exists(keys.image(capture.image)))


def read_image(store: Store, capture: Capture) -> bytes:
    """The image of a captured request. Raises `KeyNotFound` if it is not kept, or no longer."""
    try:
        return store.get(image_key(capture)).data
    except KeyNotFound:
        return store.get(keys.image(capture.image)).data


def read_images(store: Store, found: Iterable[Capture]) -> Iterator[tuple[str, bytes]]:
    """Digest and bytes of the images of captured requests, each once; those that are not kept are left out."""
    kept, seen = [each for each in found if each.pixels], set[str]()
    for place in (image_key, lambda each: keys.image(each.image)):
        wanted = {place(each): each.image for each in kept if each.image not in seen}
        for key, blob in store.get_many(wanted):
            if (digest := wanted[key]) not in seen:
                seen.add(digest)
                yield digest, blob.data


def adopt_images(store: Store, kept: Iterable[Capture]) -> None:
    """Copy images to where data sets have theirs, by digest: whoever speaks of them there needs them for good.

    Raises `KeyNotFound` for a capture whose image is not kept.
    """
    put_many_immutable(
        store,
        (
            (keys.image(capture.image), read_image(store, capture))
            for capture in kept
            if not store.exists(keys.image(capture.image))
        ),
    )


# -------------------------------------------------------------------------------------------------- parts


def _ends_by(key: str, after: datetime) -> bool:
    """Whether the file's name says that all its captures were received by `after`."""
    ends = keys.time_of(key)
    return ends is not None and ends <= after


def _schema() -> pa.Schema:
    import pyarrow as pa

    text = pa.string()
    return pa.schema(
        {
            "request_id": text,
            "deployment": text,
            "model": text,
            "received_at": pa.timestamp("us", tz="UTC"),
            "latency_ms": pa.float64(),
            "image": text,
            "label": text,
            "labels": pa.list_(text),
            "probabilities": pa.map_(text, pa.float64()),
            "embedding": pa.list_(pa.float32()),
            "metadata": pa.map_(text, text),
            "shadow": text,
            "pixels": pa.bool_(),
            "image_bytes": pa.int64(),
        }
    )


def _to_parquet(captures: Iterable[Capture]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {
            **capture.model_dump(exclude={"label"}),
            ("label" if isinstance(capture.label, str) else "labels"): capture.label,
            "probabilities": list(capture.probabilities.items()),
            "metadata": list(capture.metadata.items()),
            "shadow": capture.shadow and capture.shadow.to_json().decode(),
        }
        for capture in captures
    ]
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=_schema())
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _from_parquet(data: bytes) -> list[Capture]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = _schema()
        table = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read()
        for field in (schema.field(name) for name in _LATER):
            if field.name not in table.column_names:  # files from before there were such
                table = table.append_column(field.name, pa.nulls(len(table), field.type))
        return [Capture.model_validate(row) for row in _rows(table.select(schema.names).cast(schema))]
    except (pa.ArrowException, OSError, ValueError, KeyError, ValidationError) as error:
        raise Unreadable(str(error).partition("\n")[0]) from error


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    for row in table.to_pylist():
        unsaid = "label" if row["label"] is None else "labels"
        del row[unsaid]
        yield {
            **row,
            "probabilities": dict(row["probabilities"]),
            "metadata": dict(row["metadata"]),
            "pixels": row["pixels"] is not False,
            "shadow": row["shadow"] and ShadowAnswer.model_validate_json(row["shadow"]),
        }
