"""Real requests to the served model, from a few clients at once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from autovision.dataset.importer import SourceImage
from autovision.errors import AutoVisionError
from autovision.serving.client import Client

_CLIENTS = 4


@dataclass
class Traffic:
    """Sends cells to a server and counts. A request that fails is counted, not repeated."""

    client: Client
    sent: int = 0
    failed: int = 0
    during_promotion: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    """the model of every answer, in the order of the answers"""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, cells: Sequence[SourceImage]) -> list[tuple[str, SourceImage]]:
        """Send cells; the request id of each that was answered."""
        with ThreadPoolExecutor(_CLIENTS) as pool:
            ids = list(pool.map(self._one, cells))
        return [
            (request_id, cell) for request_id, cell in zip(ids, cells, strict=True) if request_id is not None
        ]

    @contextmanager
    def background(self, cells: Sequence[SourceImage], *, per_second: float) -> Iterator[None]:
        """Keep sending while the block runs, so that a promotion happens under load."""
        over = threading.Event()

        def loop() -> None:
            for cell in itertools.cycle(cells):
                if over.wait(1 / per_second):
                    return
                self._one(cell)
                self.during_promotion += 1

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def wait_for(self, model: str, cell: SourceImage, *, timeout_s: float = 90.0) -> bool:
        """Ask until the server answers with `model`; False if it does not in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._one(cell)
            if self.models and self.models[-1] == model:
                return True
            time.sleep(0.2)
        return False

    def _one(self, cell: SourceImage) -> str | None:
        assert cell.path is not None
        data = Path(cell.path).read_bytes()
        began = time.perf_counter()
        try:
            answer = self.client.predict(data, metadata={"cell_type": cell.metadata["cell_type"]})
        except AutoVisionError:
            with self._lock:
                self.sent, self.failed = self.sent + 1, self.failed + 1
            return None
        with self._lock:
            self.sent += 1
            self.latencies_ms.append(1e3 * (time.perf_counter() - began))
            self.models.append(answer.model)
        return answer.request_id
