"""What tests need, shipped so that users can test their own parts: a clock to set, contract suites, simulated searches.

`simulation` runs a search on a virtual clock, with costs and curves of your own, and `year` the whole loop.
`store_contract` needs pytest, and `store_model` hypothesis; `s3_server` is moto in a process of its own, and
`faulty_proxy` a proxy through which requests go wrong. `MemoryStore` (of `autovision.store`) is the store for tests.
"""

from autovision.testing.clock import FakeClock

__all__ = ["FakeClock"]
