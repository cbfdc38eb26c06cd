"""Holes, huge sizes and the blocks that files take."""

import ctypes
import errno
import os
from pathlib import Path

from .assertions import fails, make, opened

GIB = 1 << 30
FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def _fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    if _libc.fallocate64(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def a_gap_reads_as_zeros(root: Path) -> None:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"start", 0)
        os.pwrite(fd, b"end", 1_000_000)
        assert os.fstat(fd).st_size == 1_000_003
        content = os.pread(fd, 1_000_003, 0)
        while len(content) < 1_000_003:
            content += os.pread(fd, 1_000_003, len(content))
    assert content == b"start" + bytes(999_995) + b"end"


def files_beyond_4_gib_work(root: Path) -> None:
    for offset in (2 * GIB - 2, 4 * GIB - 2, 5 * GIB, 64 * GIB + 12345):
        with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
            os.pwrite(fd, b"far away", offset)
            assert os.fstat(fd).st_size == offset + 8
            assert os.pread(fd, 100, offset - 3) == b"\0\0\0far away"
            assert os.lseek(fd, 0, os.SEEK_END) == offset + 8
    with opened(root / "file") as fd:
        assert os.pread(fd, 8, 5 * GIB) == b"far away"


def a_hole_takes_no_blocks(root: Path) -> None:
    path = make(root / "file")
    os.truncate(path, 1024 * GIB)
    assert os.stat(path).st_size == 1024 * GIB
    assert os.stat(path).st_blocks * 512 < 1 << 20
    with opened(path, os.O_RDWR) as fd:
        os.pwrite(fd, b"x", 512 * GIB)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks * 512 < 1 << 20
        assert os.pread(fd, 3, 512 * GIB - 1) == b"\0x\0"


def blocks_count_what_is_written(root: Path) -> None:
    path = make(root / "file")
    assert os.stat(path).st_blocks == 0
    with opened(path, os.O_WRONLY) as fd:
        # For a file that grows xfs sets blocks aside, up to the moment when it is closed; a mount
        # passes that on a little after close(2).
        os.ftruncate(fd, 1 << 20)
        for start in range(0, 1 << 20, 1 << 16):
            os.pwrite(fd, b"x" * (1 << 16), start)
        os.fsync(fd)
    blocks = os.stat(path).st_blocks
    assert 2048 <= blocks <= 2048 + 256
    with opened(path, os.O_RDWR) as fd:
        assert os.fstat(fd).st_blocks == blocks
        os.ftruncate(fd, 0)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks == 0
        assert os.fstat(fd).st_blksize >= 512


def truncation_frees_blocks(root: Path) -> None:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"x" * (1 << 20), 0)
        os.fsync(fd)
        os.ftruncate(fd, 1 << 18)
        os.fsync(fd)
        assert os.fstat(fd).st_blocks <= 512 + 64


def a_huge_truncation_works_or_is_too_big(root: Path) -> None:
    path = make(root / "file", b"content")
    for size in (2**43, 2**62, 2**63 - 1):
        try:
            os.truncate(path, size)
        except OSError as error:
            assert error.errno == errno.EFBIG, error
        assert os.stat(path).st_size in (7, 2**43, 2**62, size)
        os.truncate(path, 7)
    assert path.read_bytes() == b"content"


def writing_at_the_end_of_all_offsets_is_refused(root: Path) -> None:
    with opened(make(root / "file", b"content"), os.O_RDWR) as fd:
        for offset in (2**63 - 1, 2**63 - 2):
            with fails(errno.EFBIG, errno.EINVAL):
                os.pwrite(fd, b"xxx", offset)
                os.pwrite(fd, b"x", 2**63 - 1)
        with fails(errno.EINVAL):
            os.pwrite(fd, b"x", -1)
    assert os.stat(root / "file").st_size in (7, 2**63 - 1)


def seek_data_never_skips_data(root: Path) -> None:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        places = [0, 1 << 20, (1 << 22) + 5]
        for place in places:
            os.pwrite(fd, b"data", place)
        end, position, seen = os.fstat(fd).st_size, 0, []
        while position < end:
            try:
                start = os.lseek(fd, position, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            position = os.lseek(fd, start, os.SEEK_HOLE)
            seen += [place for place in places if start <= place < position]
        assert seen == places
        with fails(errno.ENXIO):
            os.lseek(fd, end, os.SEEK_DATA)


def seek_hole_finds_the_hole(root: Path) -> None:
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"x" * 4096, 0)
        os.pwrite(fd, b"x", 1 << 24)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 4096


def allocation_extends_with_zeros(root: Path) -> None:
    """posix_fallocate(3) works everywhere: where the kernel cannot, the library writes."""
    with opened(make(root / "file", b"content"), os.O_RDWR) as fd:
        os.posix_fallocate(fd, 0, 3)
        assert os.fstat(fd).st_size == 7
        os.posix_fallocate(fd, 3, 20_000)
        assert os.fstat(fd).st_size == 20_003
        os.fsync(fd)
    assert os.stat(root / "file").st_blocks * 512 >= 20_003
    assert (root / "file").read_bytes() == b"content" + bytes(19_996)


def punched_hole_reads_as_zeros(root: Path) -> None:
    with opened(make(root / "file", b"x" * 20_000), os.O_RDWR) as fd:
        _fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096)
        assert os.pread(fd, 20_000, 0) == b"x" * 4096 + bytes(4096) + b"x" * 11_808


def fallocate_is_refused(root: Path) -> None:
    with opened(make(root / "file", b"content"), os.O_RDWR) as fd:
        for mode in (0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE):
            with fails(errno.EOPNOTSUPP):
                _fallocate(fd, mode, 0, 10_000)
        assert os.fstat(fd).st_size == 7
