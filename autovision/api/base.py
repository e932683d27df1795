"""What all parts of the Python API have: a store, and a way to Ray."""

from __future__ import annotations

from pathlib import Path

from autovision import runtime
from autovision.store import open_store


class Base:
    """One store; see `AutoVision` for the arguments."""

    def __init__(self, store: str | Path | None = None, *, address: str | None = None) -> None:
        self.store = open_store(store)
        self._address = address

    def connect(self) -> None:
        """Connect to Ray now; whatever needs it does so by itself."""
        runtime.connect(self._address)
