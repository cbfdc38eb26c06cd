"""Errors of fused: a sentence for the user, or a bug.

Every error that a user can cause or mend is a FusedError; its text is one lower-case sentence that
says what could not be done, why, and what to do.  Any other exception is a bug and keeps its
traceback.  Only `main` and the control server turn exceptions into output.
"""

from collections.abc import Sequence


class FusedError(Exception):
    """Something the user can understand and mend.  Exit status 1."""

    exit_status = 1


class UsageError(FusedError):
    """The command line does not make sense.  Exit status 2."""

    exit_status = 2


class ConfigError(FusedError):
    """The configuration is wrong; one line for each problem, `FILE:LINE:COLUMN: WHERE: WHAT`."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class NoManager(FusedError):
    """No manager answers on the control socket.  Exit status 3."""

    exit_status = 3


class UnknownMount(FusedError):
    """The configuration has no mount of that name."""


class MountBusy(FusedError):
    """An unmount was refused because processes use the mount: (pid, command, uses) of each."""

    def __init__(
        self, message: str, holders: Sequence[tuple[int, str, Sequence[str]]] = ()
    ) -> None:
        super().__init__(message)
        self.holders = holders


class WorkerFailed(FusedError):
    """A worker could not bring its mount into service, or had to give it up."""


class LedgerDamaged(FusedError):
    """The ledger cannot be trusted: truncated, of another format version, or with flipped bits."""
