"""What a file system does, as functions of a directory.

Each function is a sentence and asserts what the kernel's own file systems do; its argument is an
empty directory (mode 0755, root's) on the file system in question.  They run as root in a process
of their own; what others may do is asked as ALICE and BOB.
"""

import inspect
from collections.abc import Callable
from pathlib import Path

from . import (
    acls,
    appending,
    creation,
    data,
    directories,
    executing,
    files,
    links,
    locks,
    mapping,
    modes,
    names,
    ownership,
    paths,
    permissions,
    renames,
    sparse,
    special,
    streams,
    times,
    truncation,
    unlinked,
    xattrs,
)

Behaviour = Callable[[Path], None]

TOPICS = (
    names,
    paths,
    creation,
    modes,
    permissions,
    ownership,
    times,
    data,
    appending,
    truncation,
    files,
    sparse,
    links,
    renames,
    directories,
    streams,
    special,
    xattrs,
    acls,
    mapping,
    locks,
    unlinked,
    executing,
)


def _of(topic: object) -> list[Behaviour]:
    return [
        member
        for name, member in vars(topic).items()
        if inspect.isfunction(member)
        and member.__module__ == getattr(topic, "__name__", "")
        and not name.startswith("_")
    ]


ALL: list[Behaviour] = [behaviour for topic in TOPICS for behaviour in _of(topic)]

# What libfuse 2.9's protocol cannot say, and what a mount answers instead (asserted by the
# behaviours in the second table, which in turn are not for native file systems).
BEYOND_FUSE: dict[str, str] = {
    "tmpfile_has_no_name_until_linked": "O_TMPFILE is EOPNOTSUPP",
    "rename_noreplace_refuses_an_existing_name": "renameat2 with flags is EINVAL",
    "rename_exchange_swaps_two_names": "renameat2 with flags is EINVAL",
    "seek_hole_finds_the_hole": "SEEK_HOLE finds the end only",
    "punched_hole_reads_as_zeros": "fallocate is EOPNOTSUPP",
}
ONLY_FUSE: dict[str, str] = {
    "tmpfile_is_refused": "the error that open(2) documents",
    "rename_flags_are_refused": "the error that rename(2) documents",
    "fallocate_is_refused": "the error that fallocate(2) documents",
}
