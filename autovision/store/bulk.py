"""Many objects at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from autovision.store.protocol import Store


def put_many_immutable(store: Store, objects: Iterable[tuple[str, bytes]], *, workers: int = 16) -> int:
    """`put_immutable` of all (key, data) pairs, `workers` at a time; how many there were.

    What a write waits for is the disk or the network, which serve several writers together: on a folder one
    journal commit then covers many files. At most twice `workers` objects are in memory, so `objects` may be
    a generator. The first error stops the rest and is raised; what was written stays written.
    """
    pending: deque[Future[None]] = deque()
    count = 0
    with ThreadPoolExecutor(workers, thread_name_prefix="put-many") as pool:
        try:
            for key, data in objects:
                pending.append(pool.submit(store.put_immutable, key, data))
                count += 1
                if len(pending) >= 2 * workers:
                    pending.popleft().result()
            while pending:
                pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
    return count
