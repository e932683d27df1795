"""A process that competes for one store with others: the other half of `store_contract`'s test of processes.

    python -m autovision.testing.contender URI NAME ROUNDS

It says `ready`, waits for a line, then tries to create `race/<i>` for each of ROUNDS, and adds one ROUNDS
times to the number in `counter` by compare-and-swap. It prints the numbers `i` that it won as a JSON list.
"""

from __future__ import annotations

import json
import random
import sys
import time

from autovision.store import AlreadyExists, ETagMismatch, Store, open_store


def win(store: Store, name: str, rounds: int) -> list[int]:
    """The races that `name` won: the objects that it, and nobody else, created."""
    won = []
    for number in range(rounds):
        try:
            store.put_new(f"race/{number}", name.encode())
            won.append(number)
        except AlreadyExists:
            continue
    return won


def add(store: Store, key: str, times: int) -> None:
    """Add one to the number in the object, `times` times, by compare-and-swap."""
    for _ in range(times):
        while True:
            data, etag = store.get(key)
            try:
                store.put_if(key, str(int(data) + 1).encode(), etag)
                break
            except ETagMismatch:
                time.sleep(random.uniform(0, 0.005))


def main(uri: str, name: str, rounds: int) -> None:
    store = open_store(uri)
    print("ready", flush=True)
    sys.stdin.readline()
    won = win(store, name, rounds)
    add(store, "counter", rounds)
    print(json.dumps(won), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
