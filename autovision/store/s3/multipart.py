"""Large objects, uploaded in parts with a checksum each; they appear whole, when the last request is answered.

An upload that was cut off leaves parts that nobody sees and somebody pays for: `autovision store gc` removes them, and
so does a lifecycle rule of the bucket (`AbortIncompleteMultipartUpload`).
"""

from __future__ import annotations

import hashlib
import math
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Any

from autovision.errors import AutoVisionError
from autovision.store.s3.client import Connection, Missing

THRESHOLD_BYTES = 16 << 20
PART_BYTES = 8 << 20
PARALLEL = 8
"""parts of one object on their way at once"""
_MOST_PARTS = 9_000


def upload_parts(
    connection: Connection, name: str, data: bytes, metadata: dict[str, str], condition: dict[str, str]
) -> str:
    """Upload an object; its ETag.

    The parts are sent again as need be. The last request, which decides, is sent once: what it raises is for the caller
    to judge, and what was uploaded is given up then.
    """
    upload = _begin(connection, name, metadata)
    size = max(PART_BYTES, math.ceil(len(data) / _MOST_PARTS))
    view = memoryview(data)

    def send(number: int) -> dict[str, Any]:
        part = bytes(view[(number - 1) * size : number * size])
        checksum = b64encode(hashlib.sha256(part).digest()).decode()
        answer = connection.ask(
            f"write part {number} of {name!r}",
            "upload_part",
            Key=name,
            UploadId=upload,
            PartNumber=number,
            Body=part,
            ChecksumSHA256=checksum,
        )
        return {"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum}

    try:
        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3-write") as pool:
            parts = list(pool.map(send, range(1, math.ceil(len(data) / size) + 1)))
        answer = connection.client.complete_multipart_upload(
            Bucket=connection.location.bucket,
            Key=name,
            UploadId=upload,
            MultipartUpload={"Parts": parts},
            **condition,
        )
    except BaseException:
        # If the last request was carried out all the same, there is nothing to give up any more.
        abort(connection, name, upload)
        raise
    return str(answer["ETag"]).strip('"')


def abandoned(connection: Connection, before: datetime) -> Iterator[tuple[str, str]]:
    """Uploads of this location that were begun before then and never ended: (name, id)."""
    wanted = {"Prefix": connection.location.prefix}
    while True:
        page = connection.ask("list unfinished uploads", "list_multipart_uploads", **wanted)
        for upload in page.get("Uploads", ()):
            if upload["Initiated"] < before:
                yield upload["Key"], upload["UploadId"]
        if not page.get("IsTruncated"):
            return
        wanted |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def abort(connection: Connection, name: str, upload: str) -> None:
    """Give an upload up, if that can be done."""
    with suppress(AutoVisionError, Missing):
        connection.ask(f"give up the upload of {name!r}", "abort_multipart_upload", Key=name, UploadId=upload)


def _begin(connection: Connection, name: str, metadata: dict[str, str]) -> str:
    answer = connection.ask(
        f"write {name!r}",
        "create_multipart_upload",
        Key=name,
        Metadata=metadata,
        ChecksumAlgorithm="SHA256",
        **connection.location.encryption(),
    )
    return str(answer["UploadId"])
