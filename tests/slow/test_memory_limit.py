"""A trial in a process whose address space is too small for a whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

LIMITED = """
    import math, resource, sys
    from pathlib import Path
    import numpy as np, psutil, torch
    from PIL import Image
    from autovision.dataset.importer import import_dataset
    from autovision.space.config import TrialConfig
    from autovision.store import MemoryStore
    from autovision.trial.trial import Trial
    from autovision.trial.workbench import Workbench

    torch.set_num_threads(1)
    folder, store = Path(sys.argv[1]), MemoryStore()
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for i in range(40):
            pixels = np.random.default_rng(100 * i + ord(label)).integers(0, 255, (224, 224, 3), np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    import_dataset(store, folder, "noise", seed=0)
    config = TrialConfig(backbone="test_resnet", weights="random", resolution=224, unfreeze=4, epochs=1, batch_size=64)
    bench = Workbench(store, 1)
    first = Trial(bench, "noise@1", config.with_(batch_size=2, epochs=1), 0, math.inf)
    list(first.run())
    del first
    trial = Trial(bench, "noise@1", config, 0, math.inf)
    process = psutil.Process()
    before = process.memory_info().vms
    if room := int(sys.argv[2]):  # bytes of address space beyond what is there
        resource.setrlimit(resource.RLIMIT_AS, (before + room, before + room))
    reports = list(trial.run())
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak"))
    print(1024 * int(peak.split()[1]) - before)
    print([report.epoch for report in reports], trial.training.accumulate)
    for note in trial.notes:
        print(note)
"""


def limited(folder: Path, room: int) -> list[str]:
    """What the script prints with so many bytes beyond what it has before it trains; 0: as many as it wants."""
    script = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(LIMITED), str(folder), str(room)]
    # So that what is freed is given back, and threads do not reserve what they never use.
    quiet = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(
        script, capture_output=True, text=True, timeout=400, check=False, env={**os.environ, **quiet}
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_a_trial_that_runs_out_of_memory_is_tried_again_once_with_half_the_batch(tmp_path: Path) -> None:
    needed, reported, *notes = limited(tmp_path / "free", 0)
    assert (reported, notes) == ("[1] 1", [])
    # Half of each batch needs a little more than half: there is room for it, and none for the whole.
    _, reported, *notes = limited(tmp_path / "short", round(0.8 * int(needed)))
    assert reported == "[1] 2"
    assert notes == ["out of memory: tried again with each batch in 2 parts, gradients accumulated"]
