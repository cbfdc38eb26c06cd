"""Types that are not ours: found, asked about their options in a child, never imported here."""

import sys
from pathlib import Path

import pytest

from fused import config, filesystems
from fused.errors import FusedError
from fused.filesystems import foreign

MODULE = '''
import sys
from pathlib import Path
from typing import Literal

import llfuse
from pydantic import BaseModel

print("importing may print")
assert "fused.config" not in sys.modules


class Plain(llfuse.Operations):
    """Takes nothing.

    And says more."""


class Signed(llfuse.Operations):
    def __init__(self, source, count: int = 3, copy: bool = False, blob: bytes | None = None,
                 names: list[str] = [], path: Path = Path("/"), *, later: "Later" = None,
                 kind: Literal["a", "b"] = "a"):
        pass


class Open(llfuse.Operations):
    def __init__(self, first: str, **others): pass


class Positional(llfuse.Operations):
    def __init__(self, first, /): pass


class Modelled(llfuse.Operations):
    class Options(BaseModel):
        where: Path
        count: int = 2

    def __init__(self, where, count): pass


class Broken(llfuse.Operations):
    class Options(BaseModel):
        def __init__(self, **values): raise RuntimeError("oh")


class Alien: pass
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "others.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))


def checked(tmp_path: Path, *mounts: str) -> list[str]:
    path = tmp_path / "fused.yaml"
    lines = (
        f"  m{i}: {{mountpoint: /mnt/{i}, type: {mount}}}\n" for i, mount in enumerate(mounts)
    )
    path.write_text("mounts:\n" + "".join(lines))
    return [line.removeprefix(f"{path}:") for line in config.check(str(path))]


def test_options_by_signature(tmp_path: Path) -> None:
    assert checked(
        tmp_path,
        "'others:Plain'",
        "'others:Plain', x: 1",
        "'others:Signed', source: 5, copy: true, blob: !!binary AA==, names: [a], path: /x",
        "'others:Signed', count: true, copy: 1, blob: x, names: [1], kind: c, sauce: /",
        "'others:Open', first: a, anything: [1]",
        "'others:Positional'",
    ) == [
        "3:50: mounts.m1.x: no such key; there are: allow_other, autostart, log_level, "
        "mount_options, mountpoint, on_crash, read_only, stop_timeout, threads, type, watchdog",
        "5:3: mounts.m3.source: is missing",
        "5:58: mounts.m3.count: expected a whole number, not true",
        "5:70: mounts.m3.copy: expected true or false, not 1",
        "5:79: mounts.m3.blob: expected !!binary, not 'x'",
        "5:90: mounts.m3.names[0]: expected text, not 1",
        "5:100: mounts.m3.kind: expected 'a' or 'b', not 'c'",
        "5:103: mounts.m3.sauce: no such key, did you mean 'source'?",
        "7:34: mounts.m5.type: 'Positional' takes 'first' by position only; options are given by "
        "name",
    ]


def test_options_by_model(tmp_path: Path) -> None:
    assert checked(
        tmp_path,
        "'others:Modelled', where: /x, cuont: 3",
        "'others:Modelled', count: many",
        "'others:Broken'",
    ) == [
        "2:64: mounts.m0.cuont: no such key, did you mean 'count'?",
        "3:3: mounts.m1.where: is missing",
        "3:60: mounts.m1.count: expected a whole number, not 'many'",
        "4:34: mounts.m2.type: 'others:Broken' cannot check its options: RuntimeError: oh",
    ]


def test_values_reach_the_class_as_they_were_written_or_as_its_model_has_them(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fused.yaml"
    path.write_text(
        "mounts:\n"
        "  a: {type: 'others:Signed', mountpoint: /a, source: [!!binary AP8=, {x: 0644}]}\n"
        "  b: {type: 'others:Modelled', mountpoint: /b, where: /x/y, count: '7'}\n"
    )
    mounts = config.load(str(path)).mounts
    assert mounts["a"].options == {"source": [{"!!binary": "AP8="}, {"x": 0o644}]}
    assert filesystems.arguments(mounts["a"].options) == {"source": [b"\0\xff", {"x": 0o644}]}
    assert mounts["b"].options == {"where": "/x/y", "count": 7}
    assert "others" not in sys.modules


def test_class_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "syntax.py").write_text("def f(:\n")
    (tmp_path / "exits.py").write_text("import os; os._exit(3)\n")
    assert checked(
        tmp_path,
        *("'nowhere.at:All'", "'others:Signd'", "'others:Alien'", "'syntax:X'", "'exits:X'"),
    ) == [
        "2:34: mounts.m0.type: cannot import 'nowhere.at': No module named 'nowhere'",
        "3:34: mounts.m1.type: 'others' has no 'Signd', did you mean 'Signed'?",
        "4:34: mounts.m2.type: 'others:Alien' is not a subclass of llfuse.Operations",
        "5:34: mounts.m3.type: cannot import 'syntax': SyntaxError: invalid syntax "
        "(syntax.py, line 1)",
        "6:34: mounts.m4.type: 'exits:X' ended its process with status 3",
    ]


def test_type_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "TIMEOUT", 1.0)
    (tmp_path / "hangs.py").write_text("import time; time.sleep(60)\n")
    assert checked(tmp_path, "'hangs:X'") == [
        "2:34: mounts.m0.type: 'hangs:X' does not answer within 1 s"
    ]


def test_class_of_ours_by_its_full_name_is_checked_like_ours(tmp_path: Path) -> None:
    assert checked(tmp_path, "'fused.filesystems.memory:Memory', sise: 1") == [
        "2:69: mounts.m0.sise: no such key, did you mean 'size'?"
    ]


def test_installed_types(tmp_path: Path) -> None:
    info = tmp_path / "others-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(
        "[fused.filesystems]\nmemory = others:Plain\nplain = others:Plain\ngone = nowhere:X\n"
    )
    types = {info.name: info for info in config.types()}
    assert types["memory"].origin == "built-in"
    assert types["plain"] == ("plain", "others 1.2", "Takes nothing.", [])
    assert types["gone"] == (
        "gone",
        "others 1.2",
        "cannot import 'nowhere': No module named 'nowhere'",
        [],
    )
    assert filesystems.resolve("plain") == "others:Plain"
    assert checked(tmp_path, "plain", "plane, x: 1") == [
        "3:34: mounts.m1.type: no file system type 'plane', did you mean 'plain'?"
    ]
    with pytest.raises(FusedError, match="did you mean 'static'"):
        filesystems.resolve("statik")
