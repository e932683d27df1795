"""What all parts of the Python API have: a store, and a way to Ray."""

from __future__ import annotations

from pathlib import Path

from autovision import runtime
from autovision.store import Store, open_store


class Base:
    """One store; see `AutoVision` for the arguments."""

    def __init__(self, store: str | Path | Store | None = None, *, address: str | None = None) -> None:
        self.store = store if isinstance(store, Store) else open_store(store)
        self._address = address

    def connect(self) -> None:
        """Connect to Ray now; whatever needs it does so by itself."""
        runtime.connect(self._address)
