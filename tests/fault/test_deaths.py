"""Any death of a worker is a pause: what programs have in hand stays as it was."""

import errno
import fcntl
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from behaviours.assertions import fails, opened
from supervised import Mount, Mounted, wait_until

from fault.programs import DEATHS, Death, Program, by, live_through
from fault.storm import only_the_root_is_known
from fused.ledger.reader import Reader

TESTS = Path(__file__).parent.parent
CONTENT = os.urandom(300_000)
NAMES = 2000
Start = Callable[[], Mount]


@pytest.fixture(params=["memory", "passthrough, shared", "passthrough, exclusive"])
def start(request: pytest.FixtureRequest, mounted: Mounted, tmp_path: Path) -> Start:
    """Starts a mount that can be written to."""
    kind, _, cache = request.param.partition(", ")
    options = {"source": str(tmp_path), "cache": cache} if cache else {}
    return lambda: mounted(kind, **options)


# -- programs: each yields where the worker is to die ---------------------------------------------


def writes_on(root: Path) -> Iterator[None]:
    """A file that is half written, by two descriptors."""
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        assert os.write(fd, CONTENT[:100_000]) == 100_000
        yield
        assert os.write(fd, CONTENT[100_000:200_000]) == 100_000
        with opened(root / "file", os.O_WRONLY | os.O_APPEND) as other:
            yield
            assert os.write(other, CONTENT[200_000:]) == 100_000
            yield
            assert os.pread(fd, len(CONTENT) + 1, 0) == CONTENT
            os.fsync(fd)
    assert (root / "file").read_bytes() == CONTENT


def uses_an_unlinked_file(root: Path) -> Iterator[None]:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, CONTENT)
        os.unlink(root / "file")
        (root / "file").write_bytes(b"another")
        for size in (250_000, 5, 100_000):
            yield
            os.ftruncate(fd, size)
            os.fchmod(fd, 0o600 | size & 7)
            assert (os.fstat(fd).st_size, os.fstat(fd).st_nlink) == (size, 0)
            assert os.pread(fd, size, 0) == CONTENT[:5].ljust(size, b"\0") or size == 250_000
        os.pwrite(fd, b"end", 100_000)
        yield
        assert os.pread(fd, 10, 100_000) == b"end"
    assert (root / "file").read_bytes() == b"another"


def maps_files(root: Path) -> Iterator[None]:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, CONTENT)
        with mmap.mmap(fd, len(CONTENT)) as shared, mmap.mmap(fd, 0, mmap.MAP_PRIVATE) as private:
            private[:5] = b"alone"
            shared[100_000:100_005] = b"first"
            yield
            assert shared[:5] == CONTENT[:5]
            assert shared[200_000:] == CONTENT[200_000:]
            shared[4096:4101] = b"later"
            yield
            shared.flush()
            assert (private[:5], private[100_000:100_005]) == (b"alone", b"first")
        yield
        expected = bytearray(CONTENT)
        expected[4096:4101], expected[100_000:100_005] = b"later", b"first"
        assert os.pread(fd, len(CONTENT), 0) == expected


def holds_locks(root: Path) -> Iterator[None]:
    def in_another_process(lock: Callable[[], object]) -> bool:
        pid = os.fork()
        if not pid:
            try:
                lock()
            except OSError as error:
                os._exit(1 if error.errno in (errno.EAGAIN, errno.EACCES) else 2)
            os._exit(0)
        return os.waitpid(pid, 0)[1] == 0

    def whole() -> None:
        with opened(root / "whole", os.O_RDWR) as fd:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def part(start: int) -> None:
        with opened(root / "part", os.O_RDWR) as fd:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, start)

    flags = os.O_CREAT | os.O_RDWR
    with opened(root / "whole", flags) as one, opened(root / "part", flags) as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.lockf(other, fcntl.LOCK_EX, 10, 100)
        for _ in range(2):
            yield
            assert not in_another_process(whole)
            assert not in_another_process(lambda: part(105))
            assert in_another_process(lambda: part(110))
    assert in_another_process(whole)
    assert in_another_process(lambda: part(105))


def stays_in_directories(root: Path) -> Iterator[None]:
    (root / "inner" / "innermost").mkdir(parents=True)
    os.chdir(root / "inner")
    try:
        yield
        assert os.getcwd() == str(root / "inner")
        Path("file").write_bytes(b"content")
        assert sorted(os.listdir(".")) == ["file", "innermost"]
        os.chdir("innermost")
        os.rmdir(root / "inner" / "innermost")
        for _ in range(2):
            yield
            assert os.stat(".").st_nlink == 0
            assert os.listdir(".") == []
            with fails(errno.ENOENT):
                Path("file").write_bytes(b"content")
        os.chdir("..")
        assert os.listdir(".") == ["file"]
    finally:
        os.chdir("/")


def reads_directories(root: Path) -> Iterator[None]:
    """Names that nobody changes are neither skipped nor repeated; two streams at once."""
    (root / "many").mkdir()
    expected = sorted(f"a name of some length, {number:04}" for number in range(NAMES))
    for name in expected:
        (root / "many" / name).touch()
    with os.scandir(root / "many") as one, os.scandir(root / "many") as other:
        names: list[list[str]] = [[], []]
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            names[0].append(first.name)
            names[1].append(second.name)
            if number % 400 == 399:
                yield
                (root / "many" / f"new {number}").touch()
                os.unlink(root / "many" / f"new {number}")
    assert [sorted(set(found) & set(expected)) for found in names] == [expected] * 2
    assert all(len(found) == len(set(found)) for found in names)


def changes_names(root: Path) -> Iterator[None]:
    path, other = root / "one", root / "other"
    for _ in range(2):
        path.mkdir()
        yield
        os.rename(path, other)
        yield
        assert not path.exists()
        (other / "file").write_bytes(b"x")
        os.setxattr(other / "file", "user.x", b"1", os.XATTR_CREATE)
        yield
        assert os.getxattr(other / "file", "user.x") == b"1"
        os.symlink("target", path)
        os.link(other / "file", root / "linked")
        yield
        assert (root / "linked").stat().st_nlink == 2
        assert os.readlink(path) == "target"
        for name in (path, root / "linked", other / "file"):
            os.unlink(name)
        other.rmdir()


PROGRAMS: list[Program] = [
    writes_on,
    uses_an_unlinked_file,
    maps_files,
    holds_locks,
    stays_in_directories,
    reads_directories,
    changes_names,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_programs_notice_no_death(start: Start, program: Program) -> None:
    mount = start()
    assert live_through(mount, DEATHS, program, mount.path) > 1
    only_the_root_is_known(mount)


# -- what only some types do ----------------------------------------------------------------------


def reads_static_files(root: Path) -> Iterator[None]:
    text = b"hello\n" * 50_000
    with (
        opened(root / "text", os.O_RDONLY) as fd,
        mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped,
        os.scandir(root / "many") as entries,
    ):
        assert os.read(fd, 150_000) == text[:150_000]
        names = []
        for entry in entries:
            names.append(entry.name)
            if len(names) % 600 == 0:
                yield
        assert sorted(names) == [f"file{number:04}" for number in range(NAMES)]
        assert os.read(fd, 150_000) == text[150_000:]
        assert mapped[-6:] == b"hello\n"
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.chdir(root / "many")
        yield
        assert Path("file1999").read_bytes() == b"1999"
        assert os.readlink(root / "link") == "text"
        os.chdir("/")


def test_static_notices_no_death(mounted: Mounted) -> None:
    many = {f"file{number:04}": str(number) for number in range(NAMES)}
    files = {"text": "hello\n" * 50_000, "many": many, "link": {"/symlink": "text"}}
    mount = mounted("static", files=files)
    assert live_through(mount, DEATHS, reads_static_files, mount.path) == 4
    only_the_root_is_known(mount)


def counts(root: Path) -> Iterator[None]:
    (root / "kept").write_text("41")
    (root / "removed").write_text("1")
    with opened(root / "removed", os.O_RDONLY) as fd:
        os.unlink(root / "removed")
        for number in range(2, 60):
            with opened(root / f"counter{number}", os.O_CREAT | os.O_EXCL | os.O_RDWR) as one:
                assert os.write(one, b"%d" % number) == len(str(number))
                if number % 10 == 0:
                    yield
                assert os.pread(one, 99, 0) == b"%d\n" % number
        assert os.pread(fd, 99, 0) == b"1\n"
    assert len(os.listdir(root)) == 59
    for number in range(2, 60):
        os.unlink(root / f"counter{number}")
        if number % 20 == 0:
            yield
    assert os.listdir(root) == ["kept"]
    assert (root / "kept").read_text() == "41\n"


def test_a_type_of_somebody_else_survives_like_ours(mounted: Mounted) -> None:
    mount = mounted("fault.counterfs:Counters", python_path=(TESTS,))
    assert live_through(mount, DEATHS, counts, mount.path) > 5
    only_the_root_is_known(mount)
    mount.stop()
    mount.start()
    assert mount.does(os.listdir, mount.path) == []


def _raise_in(thread: str) -> Death:
    def die(mount: Mount) -> None:
        mount.announce("RuntimeError", "^Traceback", "thread .* failed")
        mount.does(os.setxattr, mount.path, "user.raise", thread.encode())
        mount.wait(5)

    return die


@pytest.mark.parametrize("thread", ["watch"])
def test_an_exception_in_a_thread_of_the_worker_is_a_pause(
    mounted: Mounted, tmp_path: Path, thread: str
) -> None:
    mount = mounted("fault.frail:Frail", python_path=(TESTS,), gates=str(tmp_path))
    deaths = [_raise_in(thread)]
    assert live_through(mount, deaths, writes_on, mount.path) == 3
    assert live_through(mount, deaths, uses_an_unlinked_file, mount.path) == 4
    only_the_root_is_known(mount)


def test_memory_keeps_its_content_over_deaths_but_not_over_an_unmount(mounted: Mounted) -> None:
    mount = mounted("memory")
    mount.does((mount.path / "file").write_bytes, CONTENT)
    for die in DEATHS:
        die(mount)
        mount.resume()
        assert mount.does((mount.path / "file").read_bytes) == CONTENT
    mount.stop()
    mount.start()
    assert mount.does(os.listdir, mount.path) == []


def test_a_death_is_counted_and_told(mounted: Mounted) -> None:
    mount = mounted("memory")
    for number in range(1, 4):
        mount.kill()
        mount.resume()
        with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
            header = reader.header()
        assert (header.state, header.restarts, header.pid) == ("serving", number, mount.pid)
    assert mount.log.read_text().count("the mount was resumed") == 3


def test_lookup_counts_are_exact_while_files_are_open(mounted: Mounted, tmp_path: Path) -> None:
    mount = mounted("passthrough", source=str(tmp_path))

    def looks(root: Path) -> Iterator[None]:
        for number in range(50):
            (root / f"file{number}").touch()
        with opened(root / "file7", os.O_RDONLY):
            yield
            for number in range(50):
                os.stat(root / f"file{number}")
            yield
            Path("/proc/sys/vm/drop_caches").write_text("2")
            wait_until(lambda: known() == {"/", "/file7"}, 10, "only the open file is known")
            yield
            assert known() == {"/", "/file7"}

    def known() -> set[str]:
        with Reader(str(mount.runtime / mount.name / "ledger")) as reader:
            return {inode.path for inode in reader.inodes()}

    assert live_through(mount, [by(signal.SIGKILL)], looks, mount.path) == 3
    only_the_root_is_known(mount)
