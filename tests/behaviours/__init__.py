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
# What xfs cannot hold, be it behind a mount or not, and what it answers instead.
BEYOND_XFS: dict[str, str] = {
    "symlinks_keep_targets_of_more_than_1023_bytes": "ENAMETOOLONG",
    "symlinks_to_paths_one_short_of_path_max_work": "ENAMETOOLONG",
    "device_numbers_of_32_bits_are_kept": "EINVAL",
}
ONLY_XFS: dict[str, str] = {
    "an_acl_copied_as_xfs_stores_it_counts_at_once": "root sees it as an attribute, too",
    "symlinks_take_at_most_1023_bytes": "a limit of its own, below PATH_MAX",
    "device_numbers_of_9_and_18_bits_are_the_largest": "as on the Unix that xfs comes from",
}


def expected_to_differ(name: str, *, native: bool, on_xfs: bool) -> bool:
    """Whether a behaviour is not what such a file system does."""
    here = ONLY_FUSE if native else BEYOND_FUSE
    return name in here or name in (BEYOND_XFS if on_xfs else ONLY_XFS)
