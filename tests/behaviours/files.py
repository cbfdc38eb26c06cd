"""What programs do with whole files: copying, replacing, moving bytes in the kernel."""

import errno
import os
import random
import shutil
import sqlite3
import tempfile
from pathlib import Path

from .assertions import ALICE, fails, make, opened, stamps


def replacing_by_rename_never_shows_a_mixture(root: Path) -> None:
    """What editors and package managers do."""
    make(root / "file", b"0" * 10_000)
    pid = os.fork()
    if pid == 0:
        for number in range(1, 200):
            make(root / "new", b"%d" % (number % 10) * 10_000)
            os.rename(root / "new", root / "file")
        os._exit(0)
    running = True
    while running:
        running = os.waitpid(pid, os.WNOHANG) == (0, 0)
        content = (root / "file").read_bytes()
        assert len(content) == 10_000
        assert len(set(content)) == 1
    assert content == b"9" * 10_000


def renaming_over_an_open_file_keeps_its_content(root: Path) -> None:
    make(root / "old", b"old content")
    make(root / "new", b"new content")
    with opened(root / "old", os.O_RDWR) as fd:
        os.rename(root / "new", root / "old")
        assert os.pread(fd, 20, 0) == b"old content"
        assert os.fstat(fd).st_nlink == 0
        os.pwrite(fd, b"OLD", 0)
        assert (root / "old").read_bytes() == b"new content"


def an_open_file_may_be_renamed(root: Path) -> None:
    os.mkdir(root / "directory")
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        os.write(fd, b"one")
        os.rename(root / "file", root / "directory" / "moved")
        os.write(fd, b" two")
        assert os.pread(fd, 20, 0) == b"one two"
        os.fchmod(fd, 0o600)
        os.rename(root / "directory", root / "elsewhere")
        os.write(fd, b" three")
    assert (root / "elsewhere" / "moved").read_bytes() == b"one two three"


def a_file_is_the_same_by_all_its_names(root: Path) -> None:
    make(root / "one", b"content")
    os.link(root / "one", root / "two")
    with opened(root / "one", os.O_RDWR) as one, opened(root / "two") as two:
        os.write(one, b"CONTENTS")
        assert os.pread(two, 20, 0) == b"CONTENTS"
        os.ftruncate(one, 3)
        assert os.fstat(two).st_size == os.stat(root / "two").st_size == 3
        os.chmod(root / "two", 0o600)
        assert os.fstat(one).st_mode == os.stat(root / "two").st_mode


def the_kernel_copies_between_files(root: Path) -> None:
    content = random.Random(3).randbytes(500_001)
    make(root / "from", content)
    for name, copy in (
        ("copy_file_range", os.copy_file_range),
        ("sendfile", lambda source, target, count: os.sendfile(target, source, None, count)),
    ):
        with (
            opened(root / "from") as source,
            opened(root / name, os.O_CREAT | os.O_RDWR) as target,
        ):
            while copy(source, target, 1 << 20):
                pass
        assert (root / name).read_bytes() == content, name


def pages_move_through_pipes(root: Path) -> None:
    content = random.Random(4).randbytes(40_000)
    make(root / "from", content)
    reader, writer = os.pipe()
    with opened(root / "from") as source, opened(root / "to", os.O_CREAT | os.O_WRONLY) as target:
        while count := os.splice(source, writer, 16_384):
            while count:
                count -= os.splice(reader, target, count)
    assert (root / "to").read_bytes() == content


def copying_a_tree_keeps_it(root: Path) -> None:
    os.makedirs(root / "from" / "sub" / "deep")
    make(root / "from" / "file", b"1" * 5000, 0o640)
    make(root / "from" / "sub" / "program", b"2", 0o755)
    os.symlink("../file", root / "from" / "sub" / "link")
    os.setxattr(root / "from" / "file", "user.note", b"kept")
    os.utime(root / "from" / "file", ns=(10**18 + 1, 10**18 + 2))
    shutil.copytree(root / "from", root / "to", symlinks=True)
    st = os.stat(root / "to" / "file")
    assert (st.st_mode & 0o7777, st.st_mtime_ns) == (0o640, 10**18 + 2)
    assert os.getxattr(root / "to" / "file", "user.note") == b"kept"
    assert os.readlink(root / "to" / "sub" / "link") == "../file"
    assert (root / "to" / "sub" / "link").read_bytes() == b"1" * 5000
    shutil.rmtree(root / "to")
    assert os.listdir(root) == ["from"]


def temporary_files_and_directories_work(root: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=root) as file:
        file.write(b"content")
        file.flush()
        assert Path(file.name).read_bytes() == b"content"
    with tempfile.TemporaryFile(dir=root) as file:
        file.write(b"content")
        file.seek(0)
        assert file.read() == b"content"
    with tempfile.TemporaryDirectory(dir=root) as directory:
        make(Path(directory) / "file")
    assert os.listdir(root) == []


def a_database_works_in_every_journal_mode(root: Path) -> None:
    for mode in ("delete", "truncate", "persist", "wal"):
        path = root / f"{mode}.db"
        one, two = sqlite3.connect(path), sqlite3.connect(path)
        assert one.execute(f"pragma journal_mode={mode}").fetchone() == (mode,)
        one.execute("create table t (n integer primary key, text)")
        for number in range(5):
            with one:
                one.executemany("insert into t(text) values (?)", [("x" * 100,)] * 200)
            assert two.execute("select count(*) from t").fetchone() == ((number + 1) * 200,)
        with two:
            two.execute("delete from t where n % 2")
        assert one.execute("select count(*) from t").fetchone() == (500,)
        assert one.execute("pragma integrity_check").fetchone() == ("ok",)
        one.close()
        two.close()


def statvfs_tells_about_names_and_space(root: Path) -> None:
    make(root / "file")
    st = os.statvfs(root)
    assert st.f_namemax == 255
    assert st.f_bsize >= 512
    assert st.f_frsize >= 512
    assert 0 < st.f_bavail <= st.f_bfree <= st.f_blocks
    assert 0 < st.f_ffree <= st.f_files
    with opened(root / "file") as fd:
        assert os.fstatvfs(fd).f_namemax == os.statvfs(root / "file").f_namemax == 255
    assert ALICE.does(lambda: os.statvfs(root)).f_blocks == st.f_blocks


def writing_more_than_the_process_may_is_refused(root: Path) -> None:
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    with opened(root / "file", os.O_CREAT | os.O_RDWR) as fd:
        assert os.pwrite(fd, b"x" * 20_000, 0) == 10_000
        with stamps("", fd), fails(errno.EFBIG):
            os.pwrite(fd, b"x", 10_000)
        with fails(errno.EFBIG):
            os.ftruncate(fd, 10_001)
        assert os.fstat(fd).st_size == 10_000
