"""Any sequence of operations has the results that a dict would give."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autovision.errors import CorruptObject
from autovision.store import (
    AlreadyExists,
    ETagMismatch,
    KeyNotFound,
    LocalStore,
    MemoryStore,
    Store,
    open_store,
)
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

    @precondition(lambda self: self.model)
    @rule(pick=st.data(), data=_DATA)
    def put_if_stale(self, pick: st.DataObject, data: bytes) -> None:
        key = pick.draw(st.sampled_from(sorted(self.model)))
        current = self.store.get(key).etag
        etag = pick.draw(st.sampled_from([*sorted(self.stale[key] - {current}), "", current[:-1], "no-etag"]))
        with pytest.raises(ETagMismatch):
            self.store.put_if(key, data, etag)

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
        self.store = open_store(self.store.uri)

    @invariant()
    def holds_what_the_dict_holds(self) -> None:
        if hasattr(self, "store"):
            assert {key: self.store.get(key).data for key in self.store.list()} == self.model


class LocalMachine(StoreMachine):
    def make_store(self) -> Store:
        self.folder = Path(tempfile.mkdtemp())
        return LocalStore(self.folder / "store")

    def teardown(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class MemoryMachine(StoreMachine):
    def make_store(self) -> Store:
        return MemoryStore()


_SETTINGS = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLocalModel = LocalMachine.TestCase
TestLocalModel.settings = _SETTINGS
TestMemoryModel = MemoryMachine.TestCase
TestMemoryModel.settings = _SETTINGS
