"""Any sequence of operations has the results that a dict would give, as hypothesis machines.

    class MyMachine(StoreMachine):
        def make_store(self):
            return MyStore(...)          # a fresh, empty store at each call

    TestMyModel = MyMachine.TestCase

`CrashingMachine` adds writers that end in the middle of what they do, on a store that others reach undisturbed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from autovision.errors import CorruptObject, StoreUnavailable
from autovision.store import AlreadyExists, ETagMismatch, KeyNotFound, Store, open_store
from autovision.store.keypaths import check_key

_SEGMENTS = st.one_of(
    st.sampled_from(["a", "b", "a-b", "a.b", ".tmp", ".locks", "a.blob", "x.json", "%2E"]),
    st.text(
        st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=4
    ).filter(lambda segment: segment not in (".", "..")),
)
_FEW_KEYS = st.sampled_from(["a", "a/b", "a/b/c", "a-b", "a.b", "a.blob", "b/x.json", "..a/.b"])
_KEYS = st.one_of(_FEW_KEYS, st.lists(_SEGMENTS, min_size=1, max_size=4).map("/".join))
_DATA = st.binary(max_size=8)


class StoreMachine(RuleBasedStateMachine):
    """Runs every operation on a store and on a dict; `stale` keeps ETags that were once current."""

    store: Store
    looks_each_time: ClassVar[bool] = True
    """whether everything is compared after each operation; otherwise when a run ends"""

    def __init__(self) -> None:
        super().__init__()
        self.model: dict[str, bytes] = {}
        self.stale: dict[str, set[str]] = {}

    def make_store(self) -> Store:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.store = self.make_store()

    @rule(key=_KEYS, data=_DATA)
    def put_new(self, key: str, data: bytes) -> None:
        if key in self.model:
            with pytest.raises(AlreadyExists):
                self.store.put_new(key, data)
        else:
            etag = self.store.put_new(key, data)
            self.model[key] = data
            self.stale.setdefault(key, set()).add(etag)

    @rule(key=_KEYS, data=_DATA)
    def put_if_current(self, key: str, data: bytes) -> None:
        if key not in self.model:
            with pytest.raises(KeyNotFound):
                self.store.put_if(key, data, hashlib.sha256(data).hexdigest())
            return
        etag = self.store.put_if(key, data, self.store.get(key).etag)
        self.model[key] = data
        self.stale[key].add(etag)

    @rule(which=st.integers(0, 1000), data=_DATA)
    def put_if_stale(self, which: int, data: bytes) -> None:
        # Nothing is drawn from what is there: that may depend on what went wrong.
        if self.model:
            key = sorted(self.model)[which % len(self.model)]
            current = self.store.get(key).etag
            stale = [*sorted(self.stale[key] - {current}), "", current[:-1], "no-etag"]
            with pytest.raises(ETagMismatch):
                self.store.put_if(key, data, stale[which % len(stale)])

    @rule(key=_KEYS, data=_DATA)
    def put_immutable(self, key: str, data: bytes) -> None:
        if key in self.model and len(self.model[key]) != len(data):
            with pytest.raises(CorruptObject):
                self.store.put_immutable(key, data)
            return
        self.store.put_immutable(key, data)
        self.model.setdefault(key, data)
        self.stale.setdefault(key, set()).add(self.store.get(key).etag)

    @rule(data=_DATA, damage=_DATA)
    def put_immutable_named_by_digest(self, data: bytes, damage: bytes) -> None:
        key = f"d/{hashlib.sha256(data).hexdigest()}"
        if key not in self.model:
            self.store.put_new(key, damage)
        self.store.put_immutable(key, data)
        self.model[key] = data
        self.stale.setdefault(key, set()).add(self.store.get(key).etag)

    @rule(key=_KEYS)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.model.pop(key, None)

    @rule(key=_KEYS)
    def look(self, key: str) -> None:
        assert self.store.exists(key) == (key in self.model)
        if key in self.model:
            assert self.store.get(key).data == self.model[key]
            assert self.store.local_path(key).read_bytes() == self.model[key]
        else:
            for act in (self.store.get, self.store.local_path):
                with pytest.raises(KeyNotFound):
                    act(key)

    @rule(key=_KEYS, length=st.integers(0, 12))
    def list_a_prefix(self, key: str, length: int) -> None:
        prefix = check_key(key)[:length]
        expected = sorted((k for k in self.model if k.startswith(prefix)), key=str.encode)
        assert list(self.store.list(prefix)) == expected

    @rule()
    def reopen(self) -> None:
        self.store = self.reopened()

    def reopened(self) -> Store:
        return open_store(self.store.uri)

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        if hasattr(self, "store") and self.looks_each_time:
            self._check_all(self.store)

    def _check_all(self, store: Store) -> None:
        assert {key: store.get(key).data for key in store.list()} == self.model


class CrashingMachine(StoreMachine):
    """Operations get through in the end; and between them writers begin one and end before they know what became of it.

    What such a writer leaves is the old object or its own, whole, and stays what it is. The machine looks at it with
    `calm`, which nothing disturbs, after `settle` has let everything arrive that is on its way.
    """

    operations: ClassVar[Counter[str]] = Counter()
    """how many there were, over all runs: `in doubt` are those of writers that ended without knowing"""
    large: ClassVar[bytes] = bytes(range(256)) * 4
    """an object of a size that is sent in another way than small ones, if there is such a size"""

    looks_each_time = False

    hasty: Store
    """the same store, as a writer sees it that tries once and ends"""
    calm: Store

    def settle(self) -> None:
        raise NotImplementedError

    def teardown(self) -> None:
        if hasattr(self, "calm"):
            self.settle()
            self._check_all(self.calm)

    @invariant()
    def counted(self) -> None:
        self.operations["all"] += 1

    @rule(key=_FEW_KEYS, data=_DATA)
    def begin_put_new(self, key: str, data: bytes) -> None:
        self._begin(key, data, lambda: self.hasty.put_new(key, data), AlreadyExists, key not in self.model)

    @rule(key=_FEW_KEYS, data=_DATA)
    def begin_put_if(self, key: str, data: bytes) -> None:
        if key in self.model:
            etag = self.calm.get(key).etag
            self._begin(key, data, lambda: self.hasty.put_if(key, data, etag), ETagMismatch, True)

    @rule(number=st.integers(0, 3))
    def begin_large(self, number: int) -> None:
        data = self.large + bytes([number])
        key = f"d/{hashlib.sha256(data).hexdigest()}"
        self._begin(key, data, lambda: self.hasty.put_immutable(key, data), CorruptObject, True)

    @rule(key=_FEW_KEYS)
    def begin_delete(self, key: str) -> None:
        self._begin(key, None, lambda: self.hasty.delete(key), KeyNotFound, True)

    def _begin(
        self,
        key: str,
        data: bytes | None,
        act: Callable[[], object],
        refusal: type[Exception],
        allowed: bool,
    ) -> None:
        """Begin an operation that leaves `data` (None: nothing) under `key` if it is carried out."""
        self.operations["begun"] += 1
        before = self.model.get(key)
        try:
            act()
        except StoreUnavailable:
            self.operations["in doubt"] += 1
            self.settle()
            found = self._found(key)
            assert found == before or (found == data and allowed), "neither the old object nor the new one"
        except refusal:
            assert not allowed, "it was refused, though nothing spoke against it"
            found = before
        else:
            assert allowed, "it was carried out, though something spoke against it"
            found = data
            assert self._found(key) == found, "it was acknowledged, and is lost"
        if found is None:
            self.model.pop(key, None)
        else:
            self.model[key] = found
            self.stale.setdefault(key, set()).add(self.calm.get(key).etag)

    def _found(self, key: str) -> bytes | None:
        try:
            return self.calm.get(key).data
        except KeyNotFound:
            return None
