"""What tests need, shipped so that users can test their own parts: a clock to set, and contract suites.

`store_contract` needs pytest; `MemoryStore` (of `autovision.store`) is the store for tests.
"""

from autovision.testing.clock import FakeClock

__all__ = ["FakeClock"]
