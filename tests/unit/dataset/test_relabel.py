"""The next version of a data set, with what people corrected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from autovision.dataset import manifest
from autovision.dataset.importer import import_dataset
from autovision.dataset.relabel import relabel
from autovision.records.deployments import Label
from autovision.store.memory import MemoryStore

SAID, IMPORTED = (datetime(2026, 3, day, tzinfo=UTC) for day in (1, 9))


def test_a_correction_is_of_the_day_on_which_it_was_said(store: MemoryStore, folder: Path) -> None:
    version = import_dataset(store, folder, "pets", seed=0)
    late, ahead = [row.image for row in manifest.read(store, version) if row.label == "cat"][:2]
    said = {
        late: Label(request_id=late, label="dog", said_at=SAID, received_at=IMPORTED),
        ahead: Label(
            request_id=ahead, label="dog", said_at=IMPORTED + timedelta(hours=1), received_at=IMPORTED
        ),
    }
    times = {each.image: each.at for each in relabel(store, version, said).corrections}
    assert times == {late: SAID, ahead: IMPORTED}
