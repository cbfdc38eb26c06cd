"""Names and how paths are resolved: path_resolution(7)."""

import errno
import os
from pathlib import Path

from .assertions import KINDS, fails, make, tick


def names_of_255_bytes_work_for_every_kind(root: Path) -> None:
    for kind, maker in KINDS.items():
        name = (kind + "-").ljust(255, "x")
        maker(root / name)
        assert os.listdir(root) == [name]
        os.rename(root / name, root / ("renamed-" + name)[:255])
        assert os.listdir(root) == [("renamed-" + name)[:255]]
        (os.rmdir if kind == "directory" else os.unlink)(root / ("renamed-" + name)[:255])


def names_of_255_bytes_count_bytes_not_characters(root: Path) -> None:
    make(root / ("ä" * 127 + "x"))
    with fails(errno.ENAMETOOLONG):
        make(root / ("ä" * 128))
    assert os.listdir(root) == ["ä" * 127 + "x"]


def names_need_not_be_text(root: Path) -> None:
    names = [b"\xff\xfe", b"caf\xe9", b"\x80", b"\xed\xa0\x80", b"half \xc3"]
    for name in names:
        path = root / os.fsdecode(name)
        make(path, name)
        assert path.read_bytes() == name
    assert sorted(os.listdir(os.fsencode(root))) == sorted(names)
    for name in names:
        os.rename(os.path.join(os.fsencode(root), name), os.path.join(os.fsencode(root), b"n"))
    assert os.listdir(root) == ["n"]


def names_may_hold_every_byte_but_nul_and_slash(root: Path) -> None:
    name = bytes(byte for byte in range(1, 256) if byte != ord("/"))
    path = Path(os.fsdecode(os.path.join(os.fsencode(root), name)))
    make(path, b"all")
    assert os.listdir(os.fsencode(root)) == [name]
    assert path.read_bytes() == b"all"
    for byte in name:
        if byte != ord("."):
            make(Path(os.fsdecode(os.path.join(os.fsencode(root), bytes([byte])))))
    assert len(os.listdir(root)) == 254


def odd_names_are_ordinary_names(root: Path) -> None:
    odd = ["...", ".hidden", " ", "a b", "-rf", "new\nline", "back\\slash", "*", "~", "a:b", "%s"]
    odd += ["con", "trailing.", "trailing ", "\t", "'", '"', "#", ".fuse_hidden0001", "lost+found"]
    for name in odd:
        make(root / name, name.encode())
    assert sorted(os.listdir(root)) == sorted(odd)
    assert all((root / name).read_bytes() == name.encode() for name in odd)


def names_that_differ_in_case_are_two(root: Path) -> None:
    make(root / "name", b"1")
    make(root / "NAME", b"2")
    assert ((root / "name").read_bytes(), (root / "NAME").read_bytes()) == (b"1", b"2")


def names_that_look_alike_are_two(root: Path) -> None:
    make(root / "\u00e9", b"composed")
    make(root / "e\u0301", b"decomposed")
    assert len(os.listdir(root)) == 2
    assert (root / "\u00e9").read_bytes() == b"composed"


def a_name_that_was_missing_appears_when_made(root: Path) -> None:
    for kind, maker in KINDS.items():
        path = root / kind
        for _ in range(3):
            with fails(errno.ENOENT):
                os.lstat(path)
        maker(path)
        os.lstat(path)


def a_name_that_was_removed_is_missing(root: Path) -> None:
    for _ in range(20):
        make(root / "name")
        os.stat(root / "name")
        os.unlink(root / "name")
        with fails(errno.ENOENT):
            os.stat(root / "name")
        os.mkdir(root / "name")
        os.stat(root / "name")
        os.rmdir(root / "name")
        with fails(errno.ENOENT):
            os.stat(root / "name")


def inode_numbers_are_unique_and_stay(root: Path) -> None:
    numbers = {}
    for index in range(200):
        path = root / f"file{index}"
        make(path)
        numbers[path] = os.stat(path).st_ino
    assert len(set(numbers.values())) == 200
    tick()
    for path, number in numbers.items():
        os.rename(path, path.with_suffix(".renamed"))
        assert os.stat(path.with_suffix(".renamed")).st_ino == number
    with os.scandir(root) as entries:
        assert {entry.inode() for entry in entries} == set(numbers.values())


def everything_is_on_one_device(root: Path) -> None:
    for kind, maker in KINDS.items():
        maker(root / kind)
        assert os.lstat(root / kind).st_dev == os.stat(root).st_dev
