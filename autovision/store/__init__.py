"""The store is the only truth: data sets, searches, models, deployments, captures, labels and decisions.

`open_store(uri)` gives a `Store`: a folder, a prefix of a bucket on S3, or memory. Above it stand `records`
(typed JSON with compare-and-swap), `lease` (who alone may act), `captures` and `labels` (what production sends back).
"""

from autovision.store.bulk import put_many_immutable
from autovision.store.local import LocalStore
from autovision.store.memory import MemoryStore
from autovision.store.open import open_store
from autovision.store.protocol import AlreadyExists, Blob, Entry, ETagMismatch, KeyNotFound, Store
from autovision.store.s3 import S3Store

__all__ = [
    "AlreadyExists",
    "Blob",
    "ETagMismatch",
    "Entry",
    "KeyNotFound",
    "LocalStore",
    "MemoryStore",
    "S3Store",
    "Store",
    "open_store",
    "put_many_immutable",
]
