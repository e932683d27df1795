"""The store is the only truth: data sets, searches, models, deployments, captures, labels and decisions.

`open_store(uri)` gives a `Store`: a folder, or memory. Above it stand `records` (typed JSON with
compare-and-swap), `lease` (who alone may act), `captures` and `labels` (what production sends back).
"""

from autovision.store.bulk import put_many_immutable
from autovision.store.local import LocalStore
from autovision.store.memory import MemoryStore
from autovision.store.open import open_store
from autovision.store.protocol import AlreadyExists, Blob, ETagMismatch, KeyNotFound, Store

__all__ = [
    "AlreadyExists",
    "Blob",
    "ETagMismatch",
    "KeyNotFound",
    "LocalStore",
    "MemoryStore",
    "Store",
    "open_store",
    "put_many_immutable",
]
