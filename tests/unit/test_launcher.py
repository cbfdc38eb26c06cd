"""The local launcher, with real processes that speak sd_notify."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fused.errors import WorkerFailed
from fused.launcher import Phase, WorkerState, child, deadline, suitable, supervisor, systemd
from fused.launcher.fdstore import FdStore
from fused.launcher.local import LocalLauncher

WORKER = """
import os, signal, socket, sys, time
from fused import notify
notify_socket, log = os.environ["NOTIFY_SOCKET"], print
fds = notify.listen_fds()
def end(number, frame): os._exit(0)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGUSR2, end)
"""
SERVE = WORKER + "notify.notify('READY=1', 'STATUS=serving')\n"
WAIT = "\nwhile True: time.sleep(60)\n"

Scenario = Callable[[LocalLauncher], Awaitable[None]]


def run(directory: Path, program: str, scenario: Scenario) -> None:
    """Run a scenario on a launcher whose workers run `program`; nothing may be left behind."""

    async def main() -> None:
        command = [sys.executable, "-c", program]
        async with LocalLauncher(str(directory), lambda _: command) as launcher:
            await scenario(launcher)

    before = set(os.listdir("/proc/self/fd"))
    asyncio.run(asyncio.wait_for(main(), 30))
    assert set(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


async def state(launcher: LocalLauncher) -> WorkerState:
    return (await launcher.states(["m"]))["m"]


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition did not become true within 10 seconds")


def test_a_worker_serves_once_it_is_ready_and_stops(tmp_path: Path) -> None:
    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        serving = await state(launcher)
        assert (serving.phase, serving.status_text, serving.restarts) == ("serving", "serving", 0)
        assert serving.pid is not None
        await launcher.start("m")  # does nothing
        assert (await state(launcher)).pid == serving.pid
        await launcher.stop("m")
        assert (await state(launcher)).phase is Phase.INACTIVE
        assert not os.path.exists(f"/proc/{serving.pid}")

    run(tmp_path, SERVE + WAIT, scenario)


def test_output_goes_to_the_log_and_the_environment_is_as_under_systemd(tmp_path: Path) -> None:
    program = WORKER + "print(notify_socket, os.getpid(), sorted(os.environ))\n"

    async def scenario(launcher: LocalLauncher) -> None:
        with pytest.raises(WorkerFailed, match="ended before it served"):
            await launcher.start("m")
        path = launcher.log("m")
        assert path == str(tmp_path / "m" / "log")
        text = Path(path).read_text()
        assert str(tmp_path / "m" / "notify") in text
        assert "WATCHDOG" not in text and "INVOCATION_ID" not in text
        assert os.stat(path).st_mode & 0o777 == 0o640

    run(tmp_path, program, scenario)


def test_a_worker_that_ends_by_itself_with_status_0_is_not_restarted(tmp_path: Path) -> None:
    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        await until(async_phase(launcher, Phase.INACTIVE))

    run(tmp_path, SERVE + "time.sleep(0.1)", scenario)


def async_phase(launcher: LocalLauncher, phase: Phase) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return (await state(launcher)).phase is phase

    return reached


STORE = (
    WORKER
    + """
if "pipe" in fds:
    os.write(fds["pipe"], b"again")
else:
    ours, theirs = socket.socketpair()
    for name in ("pipe", "pipe", "gone", "unwanted"):
        notify.store(name, ours.fileno() if name == "pipe" else os.pipe()[name == "gone"])
    notify.unstore("unwanted")
    notify.store("pipe2", theirs.fileno())
notify.notify("READY=1", "STATUS=" + ",".join(sorted(fds)))
"""
    + WAIT
)


def test_descriptors_outlive_workers_that_die_or_hand_over(tmp_path: Path) -> None:
    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        first = await state(launcher)
        assert first.status_text == "" and first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: restarted(launcher, 1))
        second = await state(launcher)
        assert second.status_text == "pipe,pipe2"  # one of each, and the broken pipe is gone
        assert second.error == "the worker was killed by SIGKILL"
        await launcher.restart("m")
        third = await state(launcher)
        assert (third.status_text, third.restarts) == ("pipe,pipe2", 2)
        assert third.pid != second.pid
        await launcher.stop("m")
        await launcher.start("m")
        assert (await state(launcher)).status_text == ""

    run(tmp_path, STORE, scenario)


async def restarted(launcher: LocalLauncher, times: int) -> bool:
    now = await state(launcher)
    return now.restarts == times and now.phase is Phase.SERVING


def test_the_first_restart_is_immediate(tmp_path: Path) -> None:
    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        pid = (await state(launcher)).pid
        assert pid is not None
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: restarted(launcher, 1))
        assert time.monotonic() - killed < 1
        assert "took over after" in Path(str(launcher.log("m"))).read_text()

    run(tmp_path, SERVE + WAIT, scenario)


def test_a_worker_that_cannot_start_fails_at_once_with_its_sentence(tmp_path: Path) -> None:
    program = WORKER + "notify.notify('STATUS=cannot mount: no such source'); sys.exit(1)"

    async def scenario(launcher: LocalLauncher) -> None:
        with pytest.raises(WorkerFailed, match="cannot mount: no such source"):
            await launcher.start("m")
        failed = await state(launcher)
        assert (failed.phase, failed.restarts) == (Phase.FAILED, 0)
        assert failed.error == "cannot mount: no such source"
        await launcher.stop("m")
        assert (await state(launcher)).phase is Phase.INACTIVE

    run(tmp_path, program, scenario)


def test_a_crash_loop_backs_off_and_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "FAILURES", 4)
    monkeypatch.setattr(supervisor, "HEALTHY_SECONDS", 5.0)

    async def scenario(launcher: LocalLauncher) -> None:
        began = time.monotonic()
        await launcher.start("m")
        await until(async_phase(launcher, Phase.FAILED))
        assert time.monotonic() - began > 0.1 + 0.2
        failed = await state(launcher)
        assert (failed.restarts, failed.error) == (3, "the worker was killed by SIGSEGV")
        await launcher.start("m")  # by hand it may be tried again

    run(tmp_path, SERVE + "os.kill(os.getpid(), signal.SIGSEGV)", scenario)


def test_back_off_grows_and_is_bounded() -> None:
    assert [supervisor.delay(n) for n in range(1, 6)] == [0, 0.1, 0.2, 0.4, 0.8]
    assert supervisor.delay(100) == 30


def test_health_resets_the_back_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "FAILURES", 2)
    monkeypatch.setattr(supervisor, "HEALTHY_SECONDS", 0.05)

    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        await until(lambda: many_restarts(launcher))

    async def many_restarts(launcher: LocalLauncher) -> bool:
        return (await state(launcher)).restarts >= 3

    run(tmp_path, SERVE + "time.sleep(0.1); os._exit(75)", scenario)


def test_a_configuration_error_is_not_retried(tmp_path: Path) -> None:
    program = WORKER + "notify.store('kept', 0); notify.notify('STATUS=bad key'); os._exit(78)"

    async def scenario(launcher: LocalLauncher) -> None:
        with pytest.raises(WorkerFailed, match="bad key"):
            await launcher.start("m")
        assert (await state(launcher)).restarts == 0

    run(tmp_path, program, scenario)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (WORKER + WAIT, "was not ready in time"),
        (SERVE + "notify.notify('WATCHDOG_USEC=200000', 'WATCHDOG=1')" + WAIT, "did not feed"),
        (SERVE + "notify.notify('WATCHDOG=trigger')" + WAIT, "triggered its watchdog"),
    ],
)
def test_a_late_worker_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, reason: str
) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", 0.5)
    monkeypatch.setattr(supervisor, "FAILURES", 2)

    async def scenario(launcher: LocalLauncher) -> None:
        starting = asyncio.create_task(launcher.start("m"))
        await until(async_phase(launcher, Phase.FAILED))
        await asyncio.gather(starting, return_exceptions=True)
        failed = await state(launcher)
        assert failed.restarts == 1
        assert failed.error is not None
        assert reason in failed.error and "SIGABRT" in failed.error

    run(tmp_path, program, scenario)


def test_a_fed_watchdog_stays_quiet(tmp_path: Path) -> None:
    program = SERVE + "notify.notify('WATCHDOG_USEC=300000')\n"
    program += "while True: notify.notify('WATCHDOG=1'); time.sleep(0.1)"

    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        await asyncio.sleep(0.8)
        assert (await state(launcher)).restarts == 0

    run(tmp_path, program, scenario)


def test_a_start_may_be_extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "START_SECONDS", 0.5)
    program = WORKER + "notify.notify('EXTEND_TIMEOUT_USEC=5000000'); time.sleep(1)\n"

    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        assert (await state(launcher)).restarts == 0

    run(tmp_path, program + "notify.notify('READY=1')" + WAIT, scenario)


def test_a_worker_that_ignores_every_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(deadline, "GRACE_SECONDS", 0.2)
    program = WORKER + "for n in (6, 10, 12, 15): signal.signal(n, signal.SIG_IGN)\n"

    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        await asyncio.wait_for(launcher.stop("m"), 3)
        assert (await state(launcher)).phase is Phase.INACTIVE

    run(tmp_path, program + "notify.notify('READY=1')" + WAIT, scenario)


def test_a_hung_worker_that_should_hand_over_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "GRACE_SECONDS", 0.2)
    program = SERVE + "signal.signal(signal.SIGUSR2, signal.SIG_IGN)" + WAIT

    async def scenario(launcher: LocalLauncher) -> None:
        await launcher.start("m")
        pid = (await state(launcher)).pid
        await asyncio.wait_for(launcher.restart("m"), 5)
        assert (await state(launcher)).pid != pid

    run(tmp_path, program, scenario)


def test_stop_during_a_pause_takes_effect_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "delay", lambda _: 60)

    async def scenario(launcher: LocalLauncher) -> None:
        starting = asyncio.create_task(launcher.start("m"))
        await until(async_phase(launcher, Phase.RESTARTING))
        await asyncio.wait_for(launcher.stop("m"), 1)
        with pytest.raises(WorkerFailed):
            await starting

    run(tmp_path, WORKER + "os._exit(75)", scenario)


def test_stop_right_after_start_leaves_no_worker(tmp_path: Path) -> None:
    async def scenario(launcher: LocalLauncher) -> None:
        starting = asyncio.create_task(launcher.start("m"))
        await asyncio.sleep(0)
        await launcher.stop("m")
        with pytest.raises(WorkerFailed):
            await starting
        assert (await state(launcher)).phase is Phase.INACTIVE

    run(tmp_path, SERVE + WAIT, scenario)


def test_strangers_cannot_notify(tmp_path: Path) -> None:
    program = SERVE + (
        "import subprocess\n"
        "subprocess.run([sys.executable, '-c', 'from fused import notify;"
        'notify.notify("STATUS=stranger"); notify.store("x", 0)\'])\n'
        "notify.notify('WATCHDOG_USEC=0', 'STATUS=done')"
    )

    async def scenario(launcher: LocalLauncher) -> None:
        seen: set[str] = set()

        async def done() -> bool:
            seen.add((await state(launcher)).status_text)
            return "done" in seen

        await launcher.start("m")
        await until(done)
        assert "stranger" not in seen

    run(tmp_path, program + WAIT, scenario)


def test_workers_end_when_their_manager_is_killed(tmp_path: Path) -> None:
    manager = f"""
import asyncio, sys
from fused.launcher.local import LocalLauncher
async def main():
    command = [sys.executable, "-c", sys.argv[1]]
    async with LocalLauncher({str(tmp_path)!r}, lambda _: command) as launcher:
        await launcher.start("m")
        print((await launcher.states(["m"]))["m"].pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", manager, SERVE + WAIT),
            stdout=asyncio.subprocess.PIPE,
            cwd=child.PACKAGE_DIR,
        )
        assert process.stdout is not None
        pid = int(await process.stdout.readline())
        process.kill()
        await process.wait()
        for _ in range(500):
            if not os.path.exists(f"/proc/{pid}"):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("the worker outlived its manager")

    asyncio.run(main())


def test_the_fd_store_drops_what_hangs_up() -> None:
    store = FdStore()
    try:
        ours, theirs = os.pipe()
        store.add("pipe", [os.dup(theirs), os.dup(theirs)])
        plain = os.open(__file__, os.O_RDONLY)
        store.add("file", [plain])
        store.expire()
        assert [name for name, _ in store][-1] == "file"
        os.close(ours)
        store.expire()
        assert [name for name, _ in store] == ["file"]
        os.close(theirs)
    finally:
        store.close()


def test_the_local_kind_is_chosen_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INVOCATION_ID", raising=False)
    assert suitable() == "local"


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({"ActiveState": "active", "SubState": "running", "MainPID": "12"}, Phase.SERVING),
        ({"ActiveState": "activating", "SubState": "auto-restart"}, Phase.RESTARTING),
        ({"ActiveState": "activating", "SubState": "start", "NRestarts": "0"}, Phase.STARTING),
        ({"ActiveState": "activating", "SubState": "start", "NRestarts": "2"}, Phase.RESTARTING),
        ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, Phase.STOPPING),
        ({"ActiveState": "failed", "SubState": "failed", "Result": "watchdog"}, Phase.FAILED),
        ({"ActiveState": "inactive", "SubState": "dead"}, Phase.INACTIVE),
    ],
)
def test_what_systemctl_shows_becomes_a_state(properties: dict[str, str], expected: Phase) -> None:
    assert systemd.worker_state(properties).phase is expected
