"""The ledger: against a model, killed at any point, and damaged in any way."""

import mmap
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.reader import Reader
from fused.ledger.writer import Ledger

PLACE = "/dev/shm"
NODES = st.integers(2, 40)
KEYS, NAMES = st.binary(max_size=300), st.binary(min_size=1, max_size=255)


@pytest.fixture(autouse=True)
def _descriptors_are_closed() -> Iterator[None]:
    """A worker has its ledger open until it ends; here many are opened in one process."""
    yield
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if "fused-" in os.readlink(f"/proc/self/fd/{name}"):
                os.close(int(name))


@pytest.fixture
def path() -> Iterator[str]:
    file = Path(PLACE) / f"fused-ledger-{os.getpid()}"
    yield str(file)
    file.unlink(missing_ok=True)


class AgainstModel(RuleBasedStateMachine):
    """Inodes and handles in a ledger are those of two dicts, now and after an adoption."""

    @initialize()
    def create(self) -> None:
        self.path = f"{PLACE}/fused-ledger-model-{os.getpid()}"
        self.ledger = Ledger.create(self.path, 55, 1)
        self.inodes: dict[int, list] = {}
        self.handles: dict[tuple[int, bool], tuple[int, int]] = {}

    @rule(node=NODES, key=KEYS, parent=NODES, name=NAMES)
    def lookup(self, node: int, key: bytes, parent: int, name: bytes) -> None:
        if node in self.inodes:
            self.inodes[node][0] += 1
            assert self.ledger.inodes.increment(node) == self.inodes[node][0]
        else:
            self.inodes[node] = [1, key, parent, name, 0]
            self.ledger.inodes.add(node, key, parent, name, 1)

    @rule(node=NODES, by=st.integers(1, 3))
    def forget(self, node: int, by: int) -> None:
        left = self.ledger.inodes.decrement(node, by)
        if node in self.inodes:
            self.inodes[node][0] -= by
            if self.inodes[node][0] <= 0:
                del self.inodes[node]
        assert left == (self.inodes[node][0] if node in self.inodes else 0)

    @rule(node=NODES, parent=NODES, name=NAMES)
    def rename(self, node: int, parent: int, name: bytes) -> None:
        self.ledger.inodes.rename(node, parent, name)
        if node in self.inodes:
            self.inodes[node][2:4] = [parent, name]

    @rule(node=NODES, key=KEYS)
    def reuse(self, node: int, key: bytes) -> None:
        if node in self.inodes:
            one = self.inodes[node]
            self.ledger.inodes.reuse(node, key, one[2], one[3])
            one[1] = key
            one[4] += 1

    @rule(node=NODES, directory=st.booleans(), flags=st.integers(0, 1 << 20))
    def open(self, node: int, directory: bool, flags: int) -> None:
        fh = self.ledger.next_handle()
        self.ledger.handles.add(fh, node, flags, directory)
        self.handles[fh, directory] = (node, flags)

    @precondition(lambda self: self.handles)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        fh, directory = data.draw(st.sampled_from(sorted(self.handles)))
        self.ledger.handles.remove(fh, directory)
        del self.handles[fh, directory]

    @rule()
    def adopt(self) -> None:
        self.ledger = Ledger.adopt(self.path)

    @invariant()
    def same(self) -> None:
        self.ledger.check()
        inodes = self.ledger.inodes
        assert set(inodes) == set(self.inodes)
        for node, (count, key, parent, name, generation) in self.inodes.items():
            assert inodes.count(node) == count
            assert inodes.key(node) == key
            assert inodes.place(node) == (parent, name)
            assert inodes.generation(node) == generation
        found = {(h.fh, h.directory): (h.node, h.flags) for h in self.ledger.handles}
        assert found == self.handles

    @invariant()
    def readers_agree(self) -> None:
        with Reader(self.path) as reader:
            header = reader.header()
            read = {inode.inode: inode.lookup_count for inode in reader.inodes()}
        assert read == {1: 1} | {node: one[0] for node, one in self.inodes.items()}
        assert (header.known, header.lookups) == (len(read), sum(read.values()))
        assert header.open_handles == len(self.handles)

    def teardown(self) -> None:
        Path(self.path).unlink(missing_ok=True)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def fill(path: str) -> Ledger:
    """A ledger with something of everything."""
    ledger = Ledger.create(path, 55, 1 << 39)
    for node in range(2, 60):
        ledger.inodes.add(node, b"k" * (node * 3), 1, b"n" * node, 1)
        ledger.inodes.increment(node)
    for fh in range(20):
        ledger.handles.add(fh, 2 + fh, 2, False)
    return ledger


class Killed(BaseException):
    """Stands for the end of the process between two stores."""


class KillingWords:
    """The ledger's words, until a number of stores has been made."""

    def __init__(self, words: memoryview, stores: int) -> None:
        self.words, self.left = words, stores

    def __getitem__(self, index: int) -> int:
        return self.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        self.words[index] = value


def steps(ledger: Ledger) -> None:
    """A life of changes."""
    inodes, handles = ledger.inodes, ledger.handles
    inodes.add(100, b"key", 1, b"name", 1)
    inodes.increment(100)
    inodes.add(101, b"k" * 200, 100, b"n" * 255, 1)
    inodes.rename(100, 5, b"a longer name " * 9)
    inodes.rename(101, 5, b"short")
    inodes.reuse(101, b"other", 5, b"short")
    handles.add(200, 100, 2, False)
    inodes.decrement(101, 1)
    handles.remove(200, False)
    inodes.decrement(100, 1)
    inodes.decrement(100, 1)


@pytest.mark.parametrize("stores", range(0, 130, 1))
def test_a_kill_between_any_two_stores_leaves_a_ledger_that_can_be_adopted(
    path: str, stores: int
) -> None:
    ledger = fill(path)
    killing = KillingWords(ledger.words, stores)
    ledger.inodes._words = ledger.handles._words = killing
    try:
        steps(ledger)
    except Killed:
        pass
    else:
        assert stores > 50, "the life is too short for this number of stores"
    heir = Ledger.adopt(path)
    heir.check()
    for node in range(2, 60):
        assert heir.inodes.key(node) == b"k" * (node * 3)
    for node in heir.inodes:
        heir.inodes.place(node)
    with Reader(path) as reader:
        assert {inode.inode for inode in reader.inodes()} == {1, *heir.inodes}


def damage(path: str, seed: int) -> None:
    """Flip bits, write rubbish, or cut the file."""
    chance = random.Random(seed)
    if chance.random() < 0.1:
        os.truncate(path, chance.randrange(at.TOTAL_WORDS * 8))
        return
    used = [
        (0, at.HEADER_WORDS),
        (at.SLOTS_AT, at.SLOTS_AT + at.SLOTS * at.SLOT_WORDS),
        (at.COUNTERS_AT, at.COUNTERS_END),
        (at.HANDLES_AT, at.HANDLES_AT + 20 * at.HANDLE_WORDS),
        (at.INODES_AT, at.INODES_AT + 70 * at.INODE_WORDS),
    ]
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), at.TOTAL_WORDS * 8) as map_:
        for _ in range(chance.choice([1, 1, 1, 10, 100])):
            start, end = chance.choice(used)
            place = chance.randrange(start * 8, end * 8)
            map_[place] ^= 1 << chance.randrange(8) if chance.random() < 0.7 else 0xFF


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1 << 32))
def test_damage_is_found_or_harmless(path: str, seed: int) -> None:
    fill(path)
    damage(path, seed)
    try:
        with Reader(path) as reader:
            reader.header()
            reader.operations()
            reader.in_progress()
            list(reader.inodes())
    except LedgerDamaged:
        pass
    try:
        heir = Ledger.adopt(path)
        for node in heir.inodes:
            assert heir.inodes.key(node) == b"k" * (node * 3)
            assert heir.inodes.count(node) == 2
        for handle in heir.handles:
            assert handle.node == 2 + handle.fh
        for lost in heir.unfinished().values():
            heir.take_back(lost)
    except LedgerDamaged:
        pass


def test_a_ledger_of_another_version_is_refused(path: str) -> None:
    ledger = fill(path)
    ledger.words[at.FORMAT_WORD] = at.FORMAT + (1 << 56)
    with pytest.raises(LedgerDamaged, match="another version"):
        Ledger.adopt(path)
    with pytest.raises(LedgerDamaged):
        Reader(path)


def test_a_record_of_a_lost_reply_is_taken_back(path: str) -> None:
    ledger = fill(path)
    ledger.inodes.increment(7)
    slot = ledger.slot(3)
    slot[at.COUNTED_NODE], slot[at.COUNTED_AFTER], slot[at.COUNTING] = 7, 3, 42
    slot[at.OPENED_HANDLE], slot[at.OPENED] = 5 << 1, 42
    slot[at.UNIQUE] = 42
    heir = Ledger.adopt(path)
    heir.settle()
    heir.inodes.decrement(7, 1)  # a FORGET that was read before
    heir.take_back(heir.unfinished()[42])
    assert heir.inodes.count(7) == 1
    assert (5, False) not in heir.handles
    heir.check()


def test_forgotten_inodes_give_their_memory_back(path: str) -> None:
    ledger = Ledger.create(path, 55, 1)
    empty = os.stat(path).st_blocks * 512
    for node in range(2, 40_002):
        ledger.inodes.add(node, b"k" * 20, 1, b"name%d" % node, 1)
    full = os.stat(path).st_blocks * 512
    assert full - empty <= 40_000 * at.INODE_WORDS * 8 + (1 << 20)
    for node in range(2, 40_002):
        ledger.inodes.decrement(node, 1)
    assert os.stat(path).st_blocks * 512 - empty <= 1 << 20
