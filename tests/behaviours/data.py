"""Reading and writing: read(2), write(2), open(2) with O_APPEND, O_TRUNC, O_DIRECT."""

import errno
import mmap
import os
import random
from pathlib import Path

from .assertions import fails, make, opened

PAGE = 4096


def _pattern(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def _write_all(fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]


def an_empty_file_reads_as_nothing(root: Path) -> None:
    with opened(make(root / "file"), os.O_RDWR) as fd:
        assert os.read(fd, 100) == b""
        assert os.pread(fd, 100, 1000) == b""
        assert os.fstat(fd).st_size == 0


def reading_stops_at_the_end(root: Path) -> None:
    with opened(make(root / "file", b"content")) as fd:
        assert os.read(fd, 100) == b"content"
        assert os.read(fd, 100) == b""
        assert os.pread(fd, 100, 3) == b"tent"
        assert os.pread(fd, 100, 7) == b""
        assert os.pread(fd, 100, 2**40) == b""
        assert os.pread(fd, 0, 0) == b""


def writes_are_read_back_at_any_size(root: Path) -> None:
    for size in (1, 2, PAGE - 1, PAGE, PAGE + 1, 131071, 131072, 131073, 1 << 20, 8_388_617):
        content = _pattern(size)
        path = root / str(size)
        with opened(path, os.O_CREAT | os.O_RDWR) as fd:
            _write_all(fd, content)
            assert os.fstat(fd).st_size == size
        assert path.read_bytes() == content


def writes_are_read_back_in_any_pieces(root: Path) -> None:
    content = _pattern(300_000)
    for piece in (1000, 4096, 5001, 100_000):
        path = root / str(piece)
        with opened(path, os.O_CREAT | os.O_WRONLY) as fd:
            for start in range(0, len(content), piece):
                _write_all(fd, content[start : start + piece])
        with opened(path) as fd:
            assert b"".join(iter(lambda fd=fd: os.read(fd, 7777), b"")) == content


def writes_are_seen_by_other_descriptors_at_once(root: Path) -> None:
    make(root / "file", b"0" * 10)
    with opened(root / "file", os.O_RDWR) as one, opened(root / "file") as two:
        for number in range(50):
            os.pwrite(one, str(number % 10).encode() * 10, 0)
            assert os.pread(two, 10, 0) == str(number % 10).encode() * 10
            os.pwrite(one, b"end", 10 + number)
            assert os.fstat(two).st_size == os.stat(root / "file").st_size == 13 + number


def writes_are_seen_by_other_processes_at_once(root: Path) -> None:
    make(root / "file", b"old")
    (ask, asked), (answer, answered) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(asked)
        with opened(root / "file") as fd:
            while os.read(ask, 1):
                os.write(answered, os.pread(fd, 3, 0))
        os._exit(0)
    os.close(ask)
    for content in (b"new", b"abc", b"xyz"):
        with opened(root / "file", os.O_WRONLY) as fd:
            os.write(fd, content)
            os.write(asked, b"?")
            assert os.read(answer, 3) == content
    os.close(asked)
    os.waitpid(pid, 0)


def descriptors_have_their_own_offsets(root: Path) -> None:
    make(root / "file", b"0123456789")
    with opened(root / "file") as one, opened(root / "file") as two:
        assert os.read(one, 4) == b"0123"
        assert os.read(two, 2) == b"01"
        copy = os.dup(one)
        assert os.read(copy, 2) == b"45"
        assert os.read(one, 2) == b"67"
        os.close(copy)
        assert os.lseek(one, -1, os.SEEK_END) == 9
        assert os.read(one, 5) == b"9"
        with fails(errno.EINVAL):
            os.lseek(one, -1, os.SEEK_SET)


def descriptors_have_their_own_direction(root: Path) -> None:
    make(root / "file", b"content")
    with (
        opened(root / "file", os.O_RDONLY) as reading,
        opened(root / "file", os.O_WRONLY) as writing,
        opened(root / "file", os.O_RDWR) as both,
    ):
        with fails(errno.EBADF):
            os.write(reading, b"x")
        with fails(errno.EBADF):
            os.read(writing, 1)
        with fails(errno.EINVAL):
            os.ftruncate(reading, 0)
        os.write(writing, b"C")
        assert os.read(reading, 2) == b"Co"
        assert os.read(both, 2) == b"Co"
        os.write(both, b"N")
    assert (root / "file").read_bytes() == b"CoNtent"


def reading_a_directory_is_refused(root: Path) -> None:
    with opened(root) as fd:
        with fails(errno.EISDIR):
            os.read(fd, 1)
        with fails(errno.EBADF):
            os.write(fd, b"x")
        with fails(errno.EINVAL, errno.EBADF):
            os.ftruncate(fd, 0)


def vectors_are_read_and_written_in_order(root: Path) -> None:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        assert os.writev(fd, [b"abc", b"", b"defg", b"x" * 10_000]) == 10_007
        buffers = [bytearray(2), bytearray(5), bytearray(3)]
        assert os.preadv(fd, buffers, 0) == 10
        assert b"".join(buffers) == b"abcdefgxxx"
        assert os.pwritev(fd, [b"AB", b"C"], 4) == 3
        assert os.pread(fd, 8, 0) == b"abcdABCx"


def _direct(root: Path) -> int | None:
    try:
        return os.open(root / "file", os.O_CREAT | os.O_RDWR | os.O_DIRECT, 0o644)
    except OSError as error:  # open(2): file systems without O_DIRECT say EINVAL
        assert error.errno == errno.EINVAL
        return None


def direct_io_reads_what_it_wrote(root: Path) -> None:
    fd = _direct(root)
    if fd is None:
        return
    buffer = mmap.mmap(-1, 64 * PAGE)
    content = _pattern(64 * PAGE)
    buffer[:] = content
    assert os.pwrite(fd, buffer, 0) == len(content)
    assert os.pwrite(fd, buffer, len(content)) == len(content)
    buffer[:] = bytes(64 * PAGE)
    assert os.preadv(fd, [buffer], 64 * PAGE) == len(content)
    assert buffer[:] == content
    assert os.preadv(fd, [buffer], 128 * PAGE) == 0
    os.close(fd)
    assert (root / "file").read_bytes() == content * 2


def direct_and_cached_io_see_each_other(root: Path) -> None:
    fd = _direct(root)
    if fd is None:
        return
    buffer = mmap.mmap(-1, PAGE)
    with opened(root / "file", os.O_RDWR) as cached:
        for byte in range(20):
            os.pwrite(cached, bytes([byte]) * PAGE * 2, 0)
            assert os.preadv(fd, [buffer], PAGE) == PAGE
            assert buffer[:] == bytes([byte]) * PAGE
            buffer[:] = bytes([byte + 100]) * PAGE
            os.pwrite(fd, buffer, 0)
            assert os.pread(cached, 2 * PAGE, 0) == buffer[:] + bytes([byte]) * PAGE
    os.close(fd)


def syncing_works_on_every_descriptor(root: Path) -> None:
    make(root / "file", b"content")
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_SYNC, os.O_RDWR | os.O_DSYNC):
        with opened(root / "file", flags) as fd:
            if flags:
                os.write(fd, b"written")
            os.fsync(fd)
            os.fdatasync(fd)
    with opened(root) as fd:
        os.fsync(fd)
        os.fdatasync(fd)
    assert (root / "file").read_bytes() == b"written"


def random_changes_match_a_model(root: Path) -> None:
    """A short fsx: writes, truncations, reads, each through another of three descriptors."""
    rng, model, limit = random.Random(7), bytearray(), 200_000
    fds = [os.open(root / "file", os.O_CREAT | os.O_RDWR) for _ in range(3)]
    for _ in range(600):
        fd, offset = rng.choice(fds), rng.randrange(limit)
        size = rng.choice((1, 100, PAGE, 20_000))
        kind = rng.random()
        if kind < 0.45:
            content = rng.randbytes(size)
            assert os.pwrite(fd, content, offset) == size
            model.extend(bytes(max(0, offset - len(model))))
            model[offset : offset + size] = content
        elif kind < 0.6:
            os.ftruncate(fd, offset)
            del model[offset:]
            model.extend(bytes(offset - len(model)))
        else:
            assert os.pread(fd, size, offset) == model[offset : offset + size]
        assert os.fstat(fd).st_size == len(model)
    for fd in fds:
        os.close(fd)
    assert (root / "file").read_bytes() == model
