"""A client that notes what a file system has promised it, and what may be after a power cut.

It works on one place after the other, one system call at a time, and syncs some of its work.
After each step it notes how long the disk's journal was before and after.  By these notes `wrong`
tells what a file system that came up after a cut has forgotten or made up.
"""

import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DIRECTORIES = ("one", "two")
NAMES = ("a", "b", "c", "d", "e")
State = tuple[Any, ...] | None  # what a name holds: kind, content, mode, attribute; None: nothing


@dataclass
class Step:
    """A name was made to hold `state`."""

    state: State
    began: int  # the journal's length
    synced: int | None = None  # the journal's length once it was promised; None: never
    whole: bool = True  # it holds this or what was before, and nothing in between


@dataclass
class Client:
    """The model of what the names below `root` hold, and hold durably."""

    root: Path
    journal: Path
    seed: int
    steps: dict[str, list[Step]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def work(self, count: int) -> dict[str, list[Step]]:
        """Take so many steps; all steps so far, by name."""
        for directory in DIRECTORIES:
            if not (self.root / directory).exists():
                (self.root / directory).mkdir()
                _sync(self.root)
        for _ in range(count):
            directory = self.chance.choice(DIRECTORIES)
            name = f"{directory}/{self.chance.choice(NAMES)}"
            self._step(name, self.chance.choice(self.ACTIONS), self.chance.random() < 0.7)
        return self.steps

    def _step(self, name: str, action: "Action", promised: bool) -> None:
        steps = self.steps.setdefault(name, [])
        former = steps[-1].state if steps else None
        step = Step(None, self._length())
        path = self.root / name
        if not action(self, path, former, step, promised):
            return
        steps.append(step)
        if promised:
            step.synced = self._length()

    def _length(self) -> int:
        return self.journal.stat().st_size

    def _clear(self, path: Path, former: State) -> None:
        if former is not None and former[0] == "directory":
            path.rmdir()
        elif former is not None:
            path.unlink()

    # -- steps: False when there is nothing to do ---------------------------------------------

    def put(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        content = self.chance.randbytes(self.chance.choice([0, 1, 5000, 70_000, 300_000]))
        if former is None or former[0] != "file":
            self._clear(path, former)
            former = None
        step.whole, step.state = False, ("file", content, 0o640, None)
        if former is not None:
            step.state = (*step.state[:2], *former[2:])
        with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o640)) as file:
            file.write(content)
            if promised:
                file.flush()
                os.fsync(file.fileno())
        if promised:
            _sync(path.parent)
        return True

    def append(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        return self._change(path, former, step, promised, at_end=True)

    def write(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        return self._change(path, former, step, promised, at_end=False)

    def _change(
        self, path: Path, former: State, step: Step, promised: bool, *, at_end: bool
    ) -> bool:
        if former is None or former[0] != "file":
            return False
        data = self.chance.randbytes(self.chance.choice([1, 5000, 100_000]))
        at = len(former[1]) if at_end else self.chance.randrange(400_000)
        content = former[1].ljust(at, b"\0")
        step.state = ("file", content[:at] + data + content[at + len(data) :], *former[2:])
        step.whole = False
        with open(path, "r+b") as file:
            file.seek(at)
            file.write(data)
            if promised:
                file.flush()
                self.chance.choice([os.fsync, os.fdatasync])(file.fileno())
        if promised:
            _sync(path.parent)  # the file's name may never have been promised
        return True

    def replace(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        if former is not None and former[0] == "directory":
            return False
        content = self.chance.randbytes(self.chance.choice([10, 50_000]))
        step.state = ("file", content, 0o600, None)
        new = path.parent / "new"
        with open(new, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
        if promised:
            _sync(path.parent)
        return True

    def mark(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        if former is None or former[0] != "file":
            return False
        value = self.chance.randbytes(50)
        mode = 0o600 | self.chance.randrange(0o100)
        step.whole, step.state = False, (*former[:2], mode, value)
        os.chmod(path, mode)
        os.setxattr(path, "user.mark", value)
        if promised:
            _sync(path)
            _sync(path.parent)
        return True

    def remove(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        if former is None:
            return False
        self._clear(path, former)
        if promised:
            _sync(path.parent)
        return True

    def mkdir(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        if former is not None:
            return False
        os.mkdir(path, 0o750)
        step.state = ("directory", b"", 0o750, None)
        if promised:
            _sync(path.parent)
        return True

    def symlink(self, path: Path, former: State, step: Step, promised: bool) -> bool:
        if former is not None:
            return False
        step.state = ("symlink", self.chance.randbytes(20).hex().encode(), 0o777, None)
        os.symlink(step.state[1], path)
        if promised:
            _sync(path.parent)
        return True

    ACTIONS = (put, put, append, append, write, replace, replace, mark, remove, mkdir, symlink)


Action = Callable[[Client, Path, State, Step, bool], bool]


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def look(path: Path) -> State:
    """What a name holds now; all of it is read."""
    try:
        st = os.lstat(path)
    except FileNotFoundError:
        return None
    mode = stat.S_IMODE(st.st_mode)
    if stat.S_ISLNK(st.st_mode):
        return "symlink", os.fsencode(os.readlink(path)), mode, None
    names = os.listxattr(path)
    mark = os.getxattr(path, "user.mark") if "user.mark" in names else None
    if stat.S_ISDIR(st.st_mode):
        os.listdir(path)
        return "directory", b"", mode, mark
    return "file", path.read_bytes(), mode, mark


def wrong(root: Path, steps: dict[str, list[Step]], cut: int) -> list[str]:
    """What is not as it has to be on `root` after a cut when the journal was `cut` long."""
    found = []
    for name in steps:
        taken = [step for step in steps[name] if step.began <= cut]
        promised = [i for i, step in enumerate(taken) if step.synced and step.synced <= cut]
        last = promised[-1] if promised else None
        later = taken if last is None else taken[last + 1 :]
        if not taken:
            continue
        if all(step.whole for step in later):
            allowed: list[State] = [None if last is None else taken[last].state]
            allowed += [step.state for step in later]
            held = look(root / name)
            if held not in allowed:
                found.append(f"{name} holds {_short(held)}, not {[*map(_short, allowed)]}")
        else:
            look(root / name)
    for directory, _, files in os.walk(root):
        for file in files:
            look(Path(directory) / file)
    return found


def _short(state: State) -> str:
    if state is None:
        return "nothing"
    return f"{state[0]} of {len(state[1])} bytes {state[1][:8]!r} {state[2]:o} {state[3]!r:.20}"
