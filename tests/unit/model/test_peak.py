"""How much memory a process has held."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from autovision.model.peak import peak_mb

CHILD = """
from autovision.model.peak import peak_mb

before = peak_mb()
held = bytearray(80_000_000)
del held
print(before, peak_mb())
"""


def test_a_process_is_not_said_to_be_as_large_as_the_one_that_started_it() -> None:
    large = np.ones(40_000_000)  # 320 MB, in this process
    ran = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    before, after = map(float, ran.stdout.split())
    assert large.nbytes / 1e6 < peak_mb()
    assert 1 < before < 100
    assert after > before + 70, "what was given back counts, too"
