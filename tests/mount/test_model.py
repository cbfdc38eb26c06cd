"""Random sequences of system calls on a mount and on a plain directory must come out the same."""

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from forked import in_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations import USER, Call, World, differences, tree
from supervised import Mount

CREATE, EXCLUSIVE, APPEND, TRUNCATE = os.O_CREAT, os.O_EXCL, os.O_APPEND, os.O_TRUNC

# A few names, most of which exist when a sequence begins.
paths = st.sampled_from(
    ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "e", "link/a", "\udcff"]
)
BEGINNING = [
    Call("mkdir", ("d", 0o777)),
    Call("chmod", ("d", 0o777)),
    Call("mkdir", ("d/e", 0o755)),
    Call("create", ("a", 0o666)),
    Call("open", (0, "a", os.O_RDWR, 0)),
    Call("pwrite", (0, b"content" * 1000, 0)),
    Call("create", ("d/a", 0o644), USER),
    Call("open", (1, "d/a", os.O_RDWR | os.O_APPEND, 0), USER),
    Call("link", ("a", "d/b")),
    Call("symlink", ("d", "link")),
]
modes = st.sampled_from([0, 0o400, 0o600, 0o644, 0o700, 0o755, 0o777, 0o1777, 0o2775, 0o4755])
sizes = st.sampled_from([0, 1, 10, 4095, 4096, 4097, 70_000])
contents = st.builds(
    lambda byte, size: bytes([byte]) * size,
    st.integers(1, 255),
    st.sampled_from([0, 1, 7, 4096, 5000, 140_000]),
)
slots = st.integers(0, 2)
ids = st.sampled_from([-1, 0, USER])
times = st.integers(0, 10**18)
xattrs = st.sampled_from(["user.x", "user.y", "trusted.z"])
flags = st.builds(
    lambda access, extra: access | extra,
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
    st.sampled_from([0, 0, CREATE, CREATE | EXCLUSIVE, APPEND, CREATE | APPEND, TRUNCATE]),
)
nodes = st.sampled_from([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
targets = st.sampled_from(["a", "b/c", "../a", "missing", "."])
GRAMMAR: dict[str, tuple[st.SearchStrategy[object], ...]] = {
    "fstat": (slots,),  # first, because shortened sequences are padded with it
    "create": (paths, modes),
    "mkdir": (paths, modes.map(lambda mode: mode | 0o700)),
    "mkfifo": (paths, modes),
    "mknod": (paths, st.builds(int.__or__, nodes, modes), st.integers(0, 300)),
    "symlink": (targets, paths),
    "link": (paths, paths),
    "rename": (paths, paths),
    "unlink": (paths,),
    "rmdir": (paths,),
    "chmod": (paths, modes),
    "chown": (paths, ids, ids),
    "utime": (paths, times, times),
    "truncate": (paths, sizes),
    "setxattr": (paths, xattrs, contents.map(lambda c: c[:1000]), st.sampled_from([0, 1, 2])),
    "removexattr": (paths, xattrs),
    "stat": (paths,),
    "readlink": (paths,),
    "listdir": (paths,),
    "getxattr": (paths, xattrs),
    "read": (paths,),
    "access": (paths, st.integers(0, 7)),
    "open": (slots, paths, flags, modes),
    "close": (slots,),
    "pwrite": (slots, contents, sizes),
    "write": (slots, contents),
    "pread": (slots, sizes, sizes),
    "ftruncate": (slots, sizes),
    "fchmod": (slots, modes),
    "fsync": (slots,),
    "pause": (),
}
FREQUENT = ["create", "mkdir", "rename", "link", "unlink", "open", "open", "pwrite", "write"]
calls = st.sampled_from([*GRAMMAR, *FREQUENT, *FREQUENT]).flatmap(
    lambda name: st.builds(
        Call,
        st.just(name),
        st.tuples(*GRAMMAR[name]),
        st.sampled_from([0, 0, 0, USER]),
    )
)


class Pair(NamedTuple):
    """A mount and a plain directory to compare it with; `source` is what the mount shows."""

    mount: Mount
    plain: Path
    source: Path | None
    numbers: Iterator[int]


@pytest.fixture(scope="module", params=["memory", "passthrough-shared", "passthrough-exclusive"])
def pair(request: pytest.FixtureRequest, place: Path, numbers: Iterator[int]) -> Iterator[Pair]:
    """The plain directory is on the same kind of file system as what is behind the mount."""
    kind, _, cache = request.param.partition("-")
    plain, source = place / f"plain{next(numbers)}", place / f"model-source{next(numbers)}"
    plain.mkdir()
    source.mkdir()
    options = {"source": str(source), "cache": cache} if kind == "passthrough" else {}
    if kind == "memory":
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", plain], check=True)
    with Mount(place / f"model{next(numbers)}", kind, **options) as mount:
        yield Pair(mount, plain, source if kind == "passthrough" else None, numbers)
    if kind == "memory":
        subprocess.run(["umount", plain], check=True)


def _compare(sequence: list[Call], ours: Path, plain: Path, source: Path | None) -> None:
    """Carry out the calls on both sides and assert that nothing differs."""
    os.umask(0o022)
    began = time.time_ns() - 10**9
    sides = []
    for root in (ours, plain):
        os.makedirs(root / "tree")
        os.chmod(root / "tree", 0o777)
        sides.append(World(root / "tree"))
    try:
        for number, call in enumerate([*BEGINNING, *sequence]):
            got, due = (side.do(call) for side in sides)
            assert got == due, f"call {number}, {call}: {got!r:.200} instead of {due!r:.200}"
        open_ones = [side.do(Call("fstat", (slot,))) for side in sides for slot in range(3)]
        assert open_ones[:3] == open_ones[3:]
        for side in sides:
            side.close()
        mine = tree(ours)
        assert not (found := differences(mine, tree(plain), began)), "\n".join(found)
        if source is not None:
            sync = os.open(ours, os.O_RDONLY)
            os.fsync(sync)
            os.close(sync)
            # Not the order: under write-back the source is written when the kernel likes to.
            found = differences(mine, tree(source), began, in_order=False)
            assert not found, "\n".join(found)
    finally:
        for side in sides:
            side.close()
        shutil.rmtree(ours)
        shutil.rmtree(plain)


@pytest.mark.timeout(600)  # a failing sequence is shortened for up to five minutes
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
@given(sequence=st.lists(calls, min_size=20, max_size=60))
def test_any_sequence_of_calls_matches_a_plain_directory(pair: Pair, sequence: list[Call]) -> None:
    name = f"example{next(pair.numbers)}"
    source = pair.source / name if pair.source else None
    in_child(
        _compare, sequence, pair.mount.path / name, pair.plain / name, source,
        rescue=pair.mount.abort,
    )  # fmt: skip
    assert not (text := pair.mount.complaints()), f"the worker complained:\n{text}"


@pytest.fixture(scope="module")
def tmpfs(place: Path, numbers: Iterator[int]) -> Iterator[Path]:
    directory = place / f"tmpfs{next(numbers)}"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", directory], check=True)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sequence=st.lists(calls, min_size=20, max_size=60))
def test_the_kernels_own_file_systems_match_each_other(
    place: Path, tmpfs: Path, numbers: Iterator[int], sequence: list[Call]
) -> None:
    """So what the other test finds is a fault of ours, and not of the comparison."""
    name = f"example{next(numbers)}"
    in_child(_compare, sequence, tmpfs / name, place / name, None)
