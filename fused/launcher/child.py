"""One child process, started the way systemd starts a service."""

import asyncio
import contextlib
import fcntl
import os
import signal

# $0 is where to run; LISTEN_PID must be the pid that the worker itself will have, and a manager
# that dies takes its workers along in an orderly way.
SHELL = 'cd "$0" && export LISTEN_PID=$$ && exec "$@"'
WRAPPER = ["setpriv", "--pdeathsig", "TERM", "sh", "-c", SHELL]
OWN_VARIABLES = ("LISTEN_", "WATCHDOG_", "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM")
PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Child:
    """A running process and the news of its end.

    `ended` is done when the process is gone and reaped; its result is the exit status, or minus
    the number of the signal that killed it, as in subprocess.
    """

    def __init__(
        self, command: list[str], notify: str, log: int, fds: list[tuple[str, int]]
    ) -> None:
        """Start `command` with `fds` as 3, 4, … (sd_listen_fds(3)) and output to `log`."""
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = loop.create_future()
        self.pid = _spawn([*WRAPPER, PACKAGE_DIR, *command], _environment(notify, fds), log, fds)
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process is gone."""
        if not self.ended.done():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        _, status = os.waitpid(self.pid, 0)
        self.ended.set_result(os.waitstatus_to_exitcode(status))


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exited with status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"


def _environment(notify: str, fds: list[tuple[str, int]]) -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(OWN_VARIABLES)}
    passed = {"NOTIFY_SOCKET": notify}
    if fds:
        passed["LISTEN_FDS"] = str(len(fds))
        passed["LISTEN_FDNAMES"] = ":".join(name for name, _ in fds)
    return inherited | passed


def _spawn(
    argv: list[str], environment: dict[str, str], log: int, fds: list[tuple[str, int]]
) -> int:
    wanted = [log, log, *(fd for _, fd in fds)]  # become 1, 2, 3, …
    with contextlib.ExitStack() as copies:
        actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)
        ]
        for target, fd in enumerate(wanted, 1):
            # Copied above all targets first: a target may be the number of a source.
            copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, len(wanted) + 1)
            copies.callback(os.close, copy)
            actions.append((os.POSIX_SPAWN_DUP2, copy, target))
        return os.posix_spawnp(
            argv[0],
            argv,
            environment,
            file_actions=actions,
            setpgroup=0,  # a terminal's Ctrl-C is for the manager, which unmounts in order
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE],
        )
