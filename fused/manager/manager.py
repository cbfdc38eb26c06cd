"""The manager: what is wanted, made so, kept so, and told to whoever asks."""

import asyncio
import contextlib
import difflib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

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


class Outcome(NamedTuple):
    """For which mounts something was done, and for which not."""

    done: list[str]
    failed: list[Failure]


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
        self._said = ""

    # What goes on by itself

    async def load(self) -> None:
        """Read the configuration; ConfigError when it has errors."""
        self._wanted = await asyncio.to_thread(config.load, self._path)

    async def begin(self) -> list[Failure]:
        """Start what is to be started by itself; returns when all serve or have failed."""
        async with self._reloading:
            wanted, local = self._wanted.mounts, self._launcher.kind == "local"
            if local:
                await self._each(list(wanted), lambda name: self._mounts.reclaim(wanted[name]))
            states = await self._launcher.states(wanted)
            due = [
                name
                for name, spec in wanted.items()
                if spec.autostart and states[name].phase is Phase.INACTIVE
                if local or not self._was_stopped(spec)
            ]
            return (await self._each(due, self._start)).failed

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
        self._say(f"{serving} of {len(self._wanted.mounts)} mounts serve")
        workers = await self._launcher.states(dubious)
        for name, seen in dubious.items():
            if seen.mount is not None and stale.is_hopeless(seen, workers[name]):
                stale.remove(seen.mount)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._said = text
            notify.notify(f"STATUS={text}")

    def _was_stopped(self, spec: MountSpec) -> bool:
        """Whether somebody stopped it on purpose since the machine was booted."""
        header = self._mounts.observe(spec).header
        return header is not None and header.state == "stopped"

    # What is asked over the control socket: see the interface

    async def status(self, names: list[str]) -> list[MountStatus]:
        """See the interface."""
        chosen = [self._spec(name) for name in names] or list(self._wanted.mounts.values())
        return await status.statuses(
            self._mounts.runtime_dir, chosen, self._launcher, self._rates, thorough=bool(names)
        )

    async def lookups(
        self, name: str, limit: int | None, unlinked: bool, minimum: int
    ) -> AsyncIterator[LookupsReply]:
        """See the interface."""
        self._spec(name)
        arguments = (self._mounts.runtime_dir, name, limit, unlinked, minimum)
        for reply in await asyncio.to_thread(lambda: list(status.lookups(*arguments))):
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
            notify.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                wanted = await asyncio.to_thread(config.load, self._path)
                return await self._apply(wanted)
            finally:
                notify.notify("READY=1")

    async def _apply(self, wanted: config.Config) -> ReloadReply:
        """Make another configuration the wanted one."""
        before, new = self._wanted.mounts, wanted.mounts
        running = {one.name for one in await self.status([]) if one.state != "stopped"}
        self._wanted = wanted
        todo = plan.difference(before, new)
        for name in [*todo.same, *todo.restart]:
            self._mounts.save(new[name], wanted.stamp)
        again = [name for name in todo.remount if name in running]
        # What goes makes room at mountpoints, so it goes before anything comes.
        stops = await self._each(todo.stop, lambda name: self._mounts.stop(before[name], True))
        halts = await self._each(again, lambda name: self._mounts.stop(before[name]))
        starts = await self._each([n for n in todo.start if new[n].autostart], self._start)
        remounts = await self._each(again, self._start)
        restarts = await self._each(
            [name for name in todo.restart if name in running],
            lambda name: self._mounts.restart(new[name], wanted.stamp),
        )
        every = (stops, halts, starts, remounts, restarts)
        return ReloadReply(
            started=starts.done,
            stopped=stops.done,
            restarted=restarts.done,
            remounted=remounts.done,
            failed=[failure for outcome in every for failure in outcome.failed],
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

    async def _each(self, names: list[str], action: Callable[[str], Awaitable[None]]) -> Outcome:
        """Do something for several mounts at once."""
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
        return Outcome(
            sorted(done, key=names.index), sorted(failed, key=lambda one: names.index(one.name))
        )


def _option(name: str, kind: str, required: bool, default: object, description: str) -> Option:
    text = None if default is None else json.dumps(default, ensure_ascii=False)
    return Option(name, kind, required, text, description)
