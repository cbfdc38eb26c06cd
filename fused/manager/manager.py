"""The manager: what is wanted, made so, kept so, and told to whoever asks."""

import asyncio
import contextlib
import difflib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from fused import config, mountinfo, notify
from fused.control.types import (
    Failure,
    LookupsReply,
    MountStatus,
    Operation,
    Option,
    ReloadReply,
    TypeInfo,
)
from fused.errors import FusedError, UnknownMount
from fused.launcher import Launcher, Phase
from fused.manager import plan, stale, status
from fused.manager.mounts import Mounts
from fused.spec import MountSpec

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


class Manager:
    """Implements `fused.control.interface.Operations`.

    Invariant: the wanted configuration is one without errors.
    """

    def __init__(
        self, path: str, runtime_dir: str, launcher: Launcher, changed: asyncio.Event
    ) -> None:
        """`changed` is set by the launcher whenever it knows of a change."""
        self._path = path
        self._mounts = Mounts(runtime_dir, launcher)
        self._launcher = launcher
        self._changed = changed
        self._wanted = config.Config({}, [])
        self._reloading = asyncio.Lock()
        self._rates = status.Rates()

    # What goes on by itself

    async def load(self) -> None:
        """Read the configuration; ConfigError when it has errors."""
        self._wanted = await asyncio.to_thread(config.load, self._path)

    async def begin(self) -> list[Failure]:
        """Start what is to be started by itself; returns when all serve or have failed."""
        wanted = self._wanted.mounts
        if self._launcher.kind == "local":
            await self._each(list(wanted), lambda name: self._mounts.reclaim(wanted[name]))
        states = await self._launcher.states(wanted)
        due = [
            name
            for name, spec in wanted.items()
            if spec.autostart and states[name].phase is Phase.INACTIVE
            if self._launcher.kind == "local" or not self._was_stopped(spec)
        ]
        _, failed = await self._each(due, self._start)
        return failed

    async def watch(self) -> None:
        """Take samples and remove dead mounts, for ever."""
        while True:
            await self._look()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), LOOK_SECONDS)
            self._changed.clear()

    async def _look(self) -> None:
        mounts, dubious, serving = mountinfo.mounts(), {}, 0
        for name, spec in self._wanted.mounts.items():
            seen = status.observe(self._mounts.runtime_dir, spec, mounts)
            if seen.header is not None:
                self._rates.sample(name, seen.header.requests)
            serving += seen.plainly() == "serving"
            if seen.mount is not None and seen.plainly() != "serving":
                dubious[name] = seen
        notify.notify(f"STATUS={serving} of {len(self._wanted.mounts)} mounts serve")
        workers = await self._launcher.states(dubious)
        for name, seen in dubious.items():
            if seen.mount is not None and stale.is_hopeless(seen, workers[name]):
                stale.remove(seen.mount)

    def _was_stopped(self, spec: MountSpec) -> bool:
        """Whether somebody stopped it on purpose since the machine was booted."""
        header = self._mounts.observe(spec).header
        return header is not None and header.state == "stopped"

    # What is asked over the control socket: see the interface

    async def status(self, names: list[str]) -> list[MountStatus]:
        """See the interface."""
        chosen = [self._spec(name) for name in names] or list(self._wanted.mounts.values())
        return await status.statuses(self._mounts.runtime_dir, chosen, self._launcher, self._rates)

    async def lookups(
        self, name: str, limit: int | None, unlinked: bool, minimum: int
    ) -> AsyncIterator[LookupsReply]:
        """See the interface."""
        self._spec(name)
        for reply in await asyncio.to_thread(
            status.lookups, self._mounts.runtime_dir, name, limit, unlinked, minimum
        ):
            yield reply

    async def stats(self, name: str) -> list[Operation]:
        """See the interface."""
        return status.operations(self._mounts.runtime_dir, self._spec(name).name)

    async def types(self) -> list[TypeInfo]:
        """See the interface."""
        return [
            TypeInfo(name, origin, description, [_option(*option) for option in options])
            for name, origin, description, options in await asyncio.to_thread(config.types)
        ]

    async def mount(self, name: str) -> MountStatus:
        """See the interface."""
        self._spec(name)
        await self._start(name)
        return await self._one(name)

    async def restart(self, name: str) -> MountStatus:
        """See the interface."""
        await self._mounts.restart(self._spec(name), self._wanted.stamp)
        return await self._one(name)

    async def unmount(self, name: str, wait: float, lazy: bool, abort: bool) -> MountStatus:
        """See the interface."""
        spec = self._spec(name)
        if abort:
            await self._mounts.abort(spec)
        elif lazy:
            await self._mounts.detach(spec)
        else:
            await self._mounts.unmount(spec, wait)
        return await self._one(name)

    async def reload(self) -> ReloadReply:
        """See the interface."""
        async with self._reloading:
            wanted = await asyncio.to_thread(config.load, self._path)
            running = {one.name for one in await self.status([]) if one.state != "stopped"}
            before, self._wanted = self._wanted.mounts, wanted
            todo = plan.difference(before, wanted.mounts)
            for name in [*todo.same, *todo.restart]:
                self._mounts.save(wanted.mounts[name], wanted.stamp)
            stopped, failed = await self._each(
                todo.stop, lambda name: self._mounts.stop(before[name], forget=True)
            )
            again = [name for name in todo.remount if name in running]
            _, more = await self._each(again, lambda name: self._mounts.stop(before[name]))
            failed += more
            autostart = [name for name in todo.start if wanted.mounts[name].autostart]
            started, more = await self._each(autostart, self._start)
            failed += more
            remounted, more = await self._each(again, self._start)
            failed += more
            ready = [name for name in todo.restart if name in running]
            restarted, more = await self._each(
                ready, lambda name: self._mounts.restart(wanted.mounts[name], wanted.stamp)
            )
            return ReloadReply(
                started=started,
                stopped=stopped,
                restarted=restarted,
                remounted=remounted,
                failed=failed + more,
            )

    def _spec(self, name: str) -> MountSpec:
        if name not in self._wanted.mounts:
            near = difflib.get_close_matches(name, self._wanted.mounts, n=1)
            hint = f", did you mean '{near[0]}'?" if near else ""
            raise UnknownMount(f"there is no mount '{name}' in {self._path}{hint}")
        return self._wanted.mounts[name]

    async def _one(self, name: str) -> MountStatus:
        return (await self.status([name]))[0]

    async def _start(self, name: str) -> None:
        await self._mounts.start(self._wanted.mounts[name], self._wanted.stamp)

    async def _each(
        self, names: list[str], action: Callable[[str], Awaitable[None]]
    ) -> tuple[list[str], list[Failure]]:
        """Do something for several mounts at once; for which it was done, and for which not."""
        done: list[str] = []
        failed: list[Failure] = []

        async def one(name: str) -> None:
            try:
                await action(name)
            except FusedError as error:
                log.error("%s", error)
                failed.append(Failure(name, str(error)))
            else:
                done.append(name)

        async with asyncio.TaskGroup() as tasks:
            for name in names:
                tasks.create_task(one(name))
        return sorted(done, key=names.index), sorted(failed, key=lambda one: names.index(one.name))


def _option(name: str, kind: str, required: bool, default: object, description: str) -> Option:
    text = None if default is None else json.dumps(default, ensure_ascii=False)
    return Option(name, kind, required, text, description)
