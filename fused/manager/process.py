"""The manager as a process: one for each runtime directory, signals, sd_notify, control socket."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import NamedTuple

from fused import notify
from fused.control import server, socket_path
from fused.control.types import MountStatus
from fused.errors import FusedError
from fused.launcher import Launcher, suitable
from fused.launcher.local import LocalLauncher, worker_command
from fused.launcher.systemd import SystemdLauncher
from fused.manager.manager import Manager

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 30  # asked of systemd, again and again, while mounts start


class Settings(NamedTuple):
    """What the command line says; the paths are absolute."""

    config: str
    runtime_dir: str
    launcher: str = "auto"


def run(settings: Settings, settled: Callable[[list[MountStatus]], None]) -> None:
    """Manage until SIGTERM or SIGINT.  `settled` is told the status once all autostart mounts
    serve or have failed.  FusedError when it cannot begin."""
    _possible()
    with _alone(settings.runtime_dir):
        asyncio.run(_run(settings, settled))


async def _run(settings: Settings, settled: Callable[[list[MountStatus]], None]) -> None:
    end, changed = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end.set)
    async with _launcher(settings, changed) as launcher:
        manager = Manager(settings.config, settings.runtime_dir, launcher, changed)
        await manager.load()
        with _listening(socket_path(settings.runtime_dir)) as sock:
            async with server.Server(manager, sock), asyncio.TaskGroup() as tasks:
                reload = asyncio.Event()
                loop.add_signal_handler(signal.SIGHUP, reload.set)
                service = tasks.create_task(_serve(manager, reload, settled))
                await end.wait()
                notify.notify("STOPPING=1")
                service.cancel()


@contextlib.contextmanager
def _listening(path: str) -> Iterator[socket.socket]:
    """The socket that systemd passed (fused.socket), else one of our own at `path`."""
    passed = server.passed(notify.listen_fds())
    if passed is not None:
        yield passed
        return
    yield server.listen(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


async def _serve(
    manager: Manager, reload: asyncio.Event, settled: Callable[[list[MountStatus]], None]
) -> None:
    """Everything that goes on by itself."""
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_feed_watchdog())
        watching = tasks.create_task(manager.watch())
        async with _patience():
            failed = await manager.begin()
        notify.notify("READY=1")
        settled(await manager.status([]))
        log.info("ready" + (f"; {len(failed)} mounts failed" if failed else ""))
        while not watching.done():
            await reload.wait()
            reload.clear()
            await _reload(manager)


async def _reload(manager: Manager) -> None:
    try:
        done = await manager.reload()
    except FusedError as error:
        log.error("reload refused, everything goes on as it was:\n%s", error)
    else:
        log.info("reloaded: %s", {key: value for key, value in done.items() if value})


async def _feed_watchdog() -> None:
    interval = notify.watchdog_interval()
    while interval is not None:
        notify.notify("WATCHDOG=1")
        await asyncio.sleep(interval / 3)


@contextlib.asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """Ask the manager's own supervisor for time while mounts start."""

    async def ask() -> None:
        while True:
            notify.notify(f"EXTEND_TIMEOUT_USEC={PATIENCE_SECONDS * 1_000_000}")
            await asyncio.sleep(PATIENCE_SECONDS / 3)

    asking = asyncio.create_task(ask())
    try:
        yield
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


@contextlib.asynccontextmanager
async def _launcher(settings: Settings, changed: asyncio.Event) -> AsyncIterator[Launcher]:
    kind = settings.launcher if settings.launcher != "auto" else suitable()
    if kind == "systemd":
        yield SystemdLauncher()
        return
    command = worker_command(settings.config, settings.runtime_dir)
    async with LocalLauncher(settings.runtime_dir, command, lambda _: changed.set()) as local:
        yield local


def _possible() -> None:
    if os.geteuid() != 0:
        raise FusedError("fused must be run by root: mounting is for root alone")
    if not os.path.exists("/dev/fuse"):
        raise FusedError("there is no /dev/fuse; 'modprobe fuse' loads the kernel's FUSE")


@contextlib.contextmanager
def _alone(runtime_dir: str) -> Iterator[None]:
    """Hold the runtime directory's lock."""
    try:
        os.makedirs(runtime_dir, mode=0o755, exist_ok=True)
        fd = os.open(
            os.path.join(runtime_dir, "manager.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644
        )
    except OSError as error:
        raise FusedError(f"cannot use {runtime_dir}: {error.strerror}") from None
    with open(fd, "r+") as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FusedError(
                f"another manager (pid {file.read().strip() or 'unknown'}) uses {runtime_dir}; "
                "one is enough, or give this one a --runtime-dir of its own"
            ) from None
        file.truncate()
        print(os.getpid(), file=file, flush=True)
        yield
