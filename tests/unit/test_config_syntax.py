"""What a file that is no proper YAML is told, word for word."""

import os
from pathlib import Path

import pytest

from fused import config

MEMORY = "mounts:\n  a:\n    type: memory\n    mountpoint: /mnt/a\n"
TAGS = "there are text, numbers, true, false, null, lists, mappings and !!binary"

SYNTAX = {
    "empty": ("", ["1:1: file: is empty; a configuration without mounts is 'mounts: {}'"]),
    "only comments": (
        "# nothing\n",
        ["1:1: file: is empty; a configuration without mounts is 'mounts: {}'"],
    ),
    "tab": ("mounts:\n\ta: {}\n", ["2:1: syntax: a tab; YAML is indented with spaces"]),
    "tab after spaces": (
        "mounts:\n  a: 1\n \tb: 2\n",
        ["3:2: syntax: a tab; YAML is indented with spaces"],
    ),
    "control character": (
        "mounts: {}\n# \x01\n",
        ["2:3: syntax: character '\\x01' is not allowed; write it as an escape in double quotes"],
    ),
    "not UTF-8": (
        b"mounts: {}\n# caf\xe9\n",
        ["2:6: syntax: byte 0xe9 is not UTF-8; save the file as UTF-8"],
    ),
    "UTF-16": (
        "mounts: {}".encode("utf-16"),
        ["1:1: syntax: byte 0xff is not UTF-8; save the file as UTF-8"],
    ),
    "unclosed": (
        "mounts: {\n",
        ["2:1: syntax: did not find expected node content (while parsing a flow node)"],
    ),
    "two documents": (
        "a: 1\n---\nb: 2\n",
        [
            "2:1: syntax: but found another document "
            "(expected a single document in the stream that begins in line 1)"
        ],
    ),
    "unknown alias": ("mounts: *a\n", ["1:9: syntax: found undefined alias"]),
    "deep": ("[" * 100_000, ["1:100: syntax: nested deeper than 100 levels"]),
    "deep through aliases": (
        "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 10_000)),
        ["99:6: a99[0]: nested deeper than 100 levels"],
    ),
    "alias bomb": (
        "a: &a0 [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"b{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)),
        ["5:5: b5[7]: more than 1000000 values, counting aliases as often as they are used"],
    ),
    "endless alias": (
        "mounts: &a {x: *a}\n",
        ["1:9: mounts.x: an alias to something that it is a part of"],
    ),
    "object": (
        "mounts: !!python/object/apply:os.system [true]\n",
        [f"1:9: mounts: the tag '!!python/object/apply:os.system' is not allowed; {TAGS}"],
    ),
    "tag of its own": (
        MEMORY + "    size: !big 1\n",
        [f"5:11: mounts.a.size: the tag '!big' is not allowed; {TAGS}"],
    ),
    "not what the tag says": (
        MEMORY + "    size: !!int x\n",
        ["5:11: mounts.a.size: 'x' is not a valid !!int"],
    ),
    "integer beyond all bounds": (
        MEMORY + f"    inodes: {'9' * 30}\n",
        [f"5:13: mounts.a.inodes: '{'9' * 30}' is not a valid !!int"],
    ),
    "merge key": (
        "a: &a {}\nmounts: {<<: *a}\n",
        [
            "1:1: a: no such key; there are: defaults, include, mounts",
            "2:10: mounts: merge keys ('<<') are not supported; use 'defaults'",
        ],
    ),
    "key read as a truth value": (
        "mounts:\n  no: {}\n",
        ["2:3: mounts: the key 'no' is not text; quote it"],
    ),
    "key that is a list": ("? [a]\n: b\n", ["1:3: file: a key that is not text"]),
    "repeated keys": (
        MEMORY + "    type: static\n  a: {}\n",
        [
            "5:5: mounts.a.type: repeated key, it stands already in line 3",
            "6:3: mounts.a: repeated key, it stands already in line 2",
        ],
    ),
}


@pytest.mark.parametrize(("text", "problems"), SYNTAX.values(), ids=SYNTAX)
def test_wrong_syntax_is_told_with_its_place(
    tmp_path: Path, text: str | bytes, problems: list[str]
) -> None:
    file = tmp_path / "fused.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert config.check(str(file)) == [f"{file}:{problem}" for problem in problems]


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing, directory, fifo = (str(tmp_path / name) for name in ("missing", "directory", "fifo"))
    os.mkdir(directory)
    os.mkfifo(fifo)
    hint = "create it, at least with the line 'mounts: {}', or name another one with --config"
    assert config.check(missing) == [f"{missing}:1:1: file: does not exist; {hint}"]
    assert config.check(directory) == [f"{directory}:1:1: file: is a directory; name a file in it"]
    assert config.check(fifo) == [f"{fifo}:1:1: file: is not a regular file"]
    assert config.check("/dev/zero") == ["/dev/zero:1:1: file: is not a regular file"]
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert config.check(str(loop)) == [
        f"{loop}:1:1: file: cannot be read: Too many levels of symbolic links"
    ]
