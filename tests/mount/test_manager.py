"""The manager with real mounts: what an administrator does, and what goes wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from managed import PYTHONPATH, Managed
from supervised import wait_until

from fused import mountinfo
from fused.manager.status import is_worker

HELLO = {"type": "static", "files": {"message": "hello world\n"}}
SCRATCH = {"type": "memory", "size": "8MiB"}


@pytest.fixture
def home(place: Path, numbers: Iterator[int]) -> Path:
    """An empty directory with a source to show."""
    directory = place / f"managed{next(numbers)}"
    (directory / "source").mkdir(parents=True)
    (directory / "source" / "file").write_text("content\n")
    return directory


def mirror(home: Path, **keys: Any) -> dict[str, Any]:
    return {"type": "passthrough", "source": str(home / "source")} | keys


def read(path: Path) -> str:
    """The content of a file on a mount, read by another process."""
    return in_child(path.read_text, limit=10)


class Holder:
    """A process that has its cwd and an open file on a mount."""

    def __init__(self, directory: Path, name: str) -> None:
        program = f"import sys; file = open({name!r}); print(flush=True); sys.stdin.read()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=directory,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def __enter__(self) -> "Holder":
        return self

    def leave(self) -> None:
        """Use the mount no more."""
        self.process.communicate()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


def mounted_at(path: Path) -> mountinfo.Mount | None:
    return mountinfo.at(str(path))


def test_three_types_are_served_and_seen(home: Path) -> None:
    with Managed(home, hello=HELLO, scratch=SCRATCH, mirror=mirror(home)) as managed:
        assert read(managed.at("hello") / "message") == "hello world\n"
        assert read(managed.at("mirror") / "file") == "content\n"
        in_child((managed.at("scratch") / "new").write_text, "x" * 1000)
        assert read(managed.at("scratch") / "new") == "x" * 1000
        for name in ("hello", "scratch", "mirror"):
            found = managed.status(name)
            assert (found["state"], found["name"], found["restarts"]) == ("serving", name, 0)
            assert found["lookupCount"] >= 2 and found["knownInodes"] >= 2
            assert found["openHandles"] == 0 and found["requests"] > 2
            assert found["lastError"] is None and found["unit"] is None
            assert 0 < found["uptime"] < 60
            assert os.path.exists(f"/proc/{found['pid']}")
        table = managed.ctl("status", "--check").stdout
        assert table.count(" serving ") == 3 and "MOUNTPOINT" in table
        assert managed.printed().count(" serving ") == 3  # `make run` shows the table


def test_lookups_shows_what_the_kernel_knows(home: Path) -> None:
    (home / "source" / os.fsdecode(b"caf\xe9")).write_text("latin-1")
    with Managed(home, mirror=mirror(home)) as managed:
        read(managed.at("mirror") / "file")
        in_child(os.stat, managed.at("mirror") / os.fsdecode(b"caf\xe9"))
        with Holder(managed.at("mirror"), "file"):
            found = managed.json("lookups", "mirror")
            assert found["mount"] == "mirror"
            inodes = {one["path"]: one for one in found["inodes"]}
            assert inodes["/"]["inode"] == 1
            assert inodes["/file"]["openHandles"] == 1
            assert inodes["/file"]["inode"] == (home / "source" / "file").stat().st_ino
            assert "/caf\\xe9" in inodes
            assert found["totalLookups"] == sum(one["lookupCount"] for one in found["inodes"])
            assert found["totalLookups"] == managed.status("mirror")["lookupCount"]
            assert len(managed.json("lookups", "mirror", "--limit", "1")["inodes"]) == 1
            assert managed.json("lookups", "mirror", "--unlinked")["inodes"] == []
            assert managed.json("lookups", "mirror", "--min", "10000")["inodes"] == []
            assert "/file" in managed.ctl("lookups", "mirror").stdout


def test_mount_unmount_and_restart_are_repeatable(home: Path) -> None:
    with Managed(home, mirror=mirror(home), scratch=SCRATCH) as managed:
        for _ in range(2):
            managed.ctl("unmount", "mirror", "scratch")
            assert mounted_at(managed.at("mirror")) is None
            assert managed.state("mirror") == managed.state("scratch") == "stopped"
            managed.ctl("unmount", "mirror")
            assert managed.status("mirror")["pid"] is None
            done = managed.json("mount", "mirror", "scratch")["mounts"]
            assert [one["state"] for one in done] == ["serving", "serving"]
            managed.ctl("mount", "mirror")
        before, connection = managed.status("mirror"), mounted_at(managed.at("mirror"))
        with Holder(managed.at("mirror"), "file") as holder:
            managed.ctl("restart", "mirror")
            after = managed.status("mirror")
            assert after["pid"] != before["pid"] and after["restarts"] == before["restarts"] + 1
            assert mounted_at(managed.at("mirror")) == connection
            holder.leave()
            assert holder.process.returncode == 0


def test_a_worker_that_is_killed_is_replaced_on_the_same_connection(home: Path) -> None:
    with Managed(home, mirror=mirror(home)) as managed:
        before, connection = managed.status("mirror"), mounted_at(managed.at("mirror"))
        os.kill(before["pid"], signal.SIGKILL)
        assert read(managed.at("mirror") / "file") == "content\n"
        managed.reaches("mirror", "serving")
        after = managed.status("mirror")
        assert after["restarts"] == 1 and after["pid"] != before["pid"]
        assert mounted_at(managed.at("mirror")) == connection
        assert "was killed by SIGKILL" in managed.ctl("logs", "mirror").stdout


def test_a_busy_unmount_is_refused_and_says_who_uses_it(home: Path) -> None:
    with Managed(home, mirror=mirror(home)) as managed:
        with Holder(managed.at("mirror"), "file") as holder:
            refused = managed.ctl("unmount", "mirror", status=1).stderr
            assert "cannot unmount 'mirror': 1 process uses it: " in refused
            assert f"({holder.process.pid}: cwd, open file /file)" in refused
            assert "--lazy" in refused
            assert managed.state("mirror") == "serving"
            assert read(managed.at("mirror") / "file") == "content\n"
            began = time.monotonic()
            managed.ctl("unmount", "mirror", "--wait", "1", status=1)
            assert time.monotonic() - began > 1
        managed.ctl("unmount", "mirror", "--wait", "10")
        assert managed.state("mirror") == "stopped"


def test_a_mapping_keeps_a_mount_busy(home: Path) -> None:
    program = (
        "import mmap, os, sys; fd = os.open(sys.argv[1], os.O_RDONLY);"
        "mapping = mmap.mmap(fd, 0, prot=mmap.PROT_READ); os.close(fd);"
        "print(flush=True); sys.stdin.read()"
    )
    with Managed(home, mirror=mirror(home)) as managed:
        with subprocess.Popen(
            [sys.executable, "-c", program, managed.at("mirror") / "file"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            refused = managed.ctl("unmount", "mirror", status=1).stderr
            process.kill()
        assert "mapping /file" in refused


def test_a_lazy_unmount_leaves_users_alone(home: Path) -> None:
    with Managed(home, mirror=mirror(home)) as managed:
        with Holder(managed.at("mirror"), "file") as holder:
            managed.ctl("unmount", "mirror", "--lazy")
            assert mounted_at(managed.at("mirror")) is None
            assert managed.state("mirror") == "stopping"
            where = Path(f"/proc/{holder.process.pid}/cwd")
            assert read(where / "file") == "content\n"
            refused = managed.ctl("mount", "mirror", status=1).stderr
            assert "programs still use it" in refused
        managed.reaches("mirror", "stopped")
        managed.ctl("mount", "mirror")


def test_abort_ends_a_mount_that_does_not_answer(home: Path) -> None:
    with Managed(home, mirror=mirror(home), hello=HELLO) as managed:
        pid = managed.status("mirror")["pid"]
        os.kill(pid, signal.SIGSTOP)
        user = subprocess.Popen(
            ["cat", managed.at("mirror") / "file"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: managed.status("mirror")["openHandles"] == 0, 5, "status answers")
        began = time.monotonic()
        assert managed.state("hello") == "serving"
        assert time.monotonic() - began < 1
        assert read(managed.at("hello") / "message") == "hello world\n"
        managed.ctl("unmount", "mirror", "--abort")
        assert user.wait(10) != 0
        assert not os.path.exists(f"/proc/{pid}")
        assert mounted_at(managed.at("mirror")) is None
        managed.ctl("mount", "mirror")
        assert read(managed.at("mirror") / "file") == "content\n"


def test_a_failing_mount_says_why_and_disturbs_nobody(home: Path) -> None:
    (home / "source").rename(home / "away")
    with Managed(home, mirror=mirror(home), hello=HELLO) as managed:
        failed = managed.status("mirror")
        assert failed["state"] == "failed" and failed["pid"] is None
        assert str(home / "source") in failed["lastError"]
        assert str(home / "source") in managed.ctl("status").stdout
        managed.ctl("status", "--check", status=1)
        assert str(home / "source") in managed.ctl("mount", "mirror", status=1).stderr
        assert read(managed.at("hello") / "message") == "hello world\n"
        wait_until(lambda: mounted_at(managed.at("mirror")) is None, 5, "nothing is left")
        (home / "away").rename(home / "source")
        managed.ctl("mount", "mirror")
        assert managed.status("mirror")["lastError"] is None


def test_an_occupied_mountpoint_is_refused(home: Path) -> None:
    place = home / "mnt" / "hello"
    place.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "other", place], check=True)
    try:
        with Managed(home, hello=HELLO, scratch=SCRATCH) as managed:
            failed = managed.status("hello")
            assert failed["state"] == "failed"
            assert "tmpfs" in failed["lastError"]
            assert managed.state("scratch") == "serving"
            found = mounted_at(place)
            assert found is not None and found.fs_type == "tmpfs"
            subprocess.run(["umount", place], check=True)
            managed.ctl("mount", "hello")
    finally:
        subprocess.run(["umount", "-q", place], check=False)


def test_reload_applies_only_the_difference(home: Path) -> None:
    first = {"hello": HELLO, "scratch": SCRATCH, "mirror": mirror(home), "gone": HELLO}
    with Managed(home, **first) as managed:
        before = {name: managed.status(name)["pid"] for name in first}
        connection = mounted_at(managed.at("mirror"))
        managed.write(
            hello=HELLO,
            scratch=SCRATCH | {"mountpoint": str(home / "mnt" / "elsewhere")},
            mirror=mirror(home, log_level="debug"),
            new=HELLO,
            later=HELLO | {"autostart": False},
        )
        done = managed.json("reload")
        assert done == {
            "started": ["new"],
            "stopped": ["gone"],
            "restarted": ["mirror"],
            "remounted": ["scratch"],
            "failed": [],
        }
        states = {one["name"]: one["state"] for one in managed.json("status")["mounts"]}
        assert states.pop("later") == "stopped"
        assert set(states) == {"hello", "scratch", "mirror", "new"}
        assert set(states.values()) == {"serving"}
        assert managed.status("hello")["pid"] == before["hello"]
        assert managed.status("mirror")["pid"] != before["mirror"]
        assert mounted_at(managed.at("mirror")) == connection
        assert mounted_at(managed.at("gone")) is None
        assert not (managed.runtime_dir / "gone").exists()
        assert mounted_at(managed.at("scratch")) is None
        assert mounted_at(home / "mnt" / "elsewhere") is not None
        assert managed.json("reload")["restarted"] == []


def test_reload_starts_a_failed_mount_whose_configuration_was_mended(home: Path) -> None:
    with Managed(home, mirror=mirror(home, source=str(home / "nonesuch"))) as managed:
        assert managed.state("mirror") == "failed"
        managed.write(mirror=mirror(home))
        managed.send(signal.SIGHUP)
        managed.reaches("mirror", "serving")


def test_a_wrong_configuration_is_refused_whole(home: Path) -> None:
    with Managed(home, hello=HELLO, mirror=mirror(home)) as managed:
        pids = [one["pid"] for one in managed.json("status")["mounts"]]
        managed.config.write_text("mounts:\n  hello:\n    type: static\n    sise: 3\n")
        refused = managed.ctl("reload", status=1).stderr
        assert f"{managed.config}:4:5: mounts.hello.sise:" in refused
        managed.send(signal.SIGHUP)
        wait_until(lambda: "reload refused" in managed.printed(), 10, "SIGHUP is answered")
        assert [one["pid"] for one in managed.json("status")["mounts"]] == pids
        os.kill(pids[0], signal.SIGKILL)  # its successor must not stumble over it, either
        assert read(managed.at("hello") / "message") == "hello world\n"


def test_a_manager_that_is_killed_takes_its_workers_along_and_the_next_begins_anew(
    home: Path,
) -> None:
    with Managed(home, hello=HELLO, mirror=mirror(home)) as managed:
        names, pids = ("hello", "mirror"), [managed.status("hello")["pid"]]
        pids.append(managed.status("mirror")["pid"])
        with Holder(managed.at("mirror"), "file"):
            managed.kill()
            managed.start()
            assert not any(is_worker(pid, name) for name, pid in zip(names, pids, strict=True))
            assert managed.state("hello") == managed.state("mirror") == "serving"
            assert read(managed.at("mirror") / "file") == "content\n"


def _stopped(pid: int) -> bool:
    """Whether no thread of a process runs any more: a stop takes a moment to reach them all."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_a_stale_mount_is_detached(home: Path) -> None:
    with Managed(home, hello=HELLO) as managed:
        pid = managed.status("hello")["pid"]
        os.kill(pid, signal.SIGSTOP)  # so that it cannot unmount when the manager dies
        wait_until(lambda: _stopped(pid), 5, "all threads of the worker have stopped")
        stale = mounted_at(managed.at("hello"))
        managed.kill()
        os.kill(pid, signal.SIGKILL)
        assert mounted_at(managed.at("hello")) == stale
        managed.start()
        assert read(managed.at("hello") / "message") == "hello world\n"
        at = [m for m in mountinfo.mounts() if m.mountpoint == str(managed.at("hello"))]
        assert len(at) == 1


def test_one_manager_per_runtime_directory(home: Path) -> None:
    with Managed(home, hello=HELLO) as managed:
        second = subprocess.run(
            [
                *(sys.executable, "-m", "fused", "--launcher", "local"),
                *("--config", managed.config, "--runtime-dir", managed.runtime_dir),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            env=os.environ | {"PYTHONPATH": PYTHONPATH},
        )
        assert second.returncode == 1
        assert "another manager (pid " in second.stderr
        assert managed.state("hello") == "serving"


def test_sigterm_unmounts_everything_busy_or_not(home: Path) -> None:
    with Managed(home, hello=HELLO, scratch=SCRATCH, mirror=mirror(home)) as managed:
        with Holder(managed.at("mirror"), "file"):
            assert managed.kill(signal.SIGTERM) == 0
        assert [m for m in mountinfo.mounts() if str(home) in m.mountpoint] == []


def test_no_manager_is_exit_status_3(home: Path) -> None:
    managed = Managed(home)
    refused = managed.ctl("status", status=3).stderr
    assert "cannot reach the manager" in refused and "systemctl start fused" in refused


def test_exit_statuses_and_where_json_may_stand(home: Path) -> None:
    with Managed(home, hello=HELLO) as managed:
        assert "did you mean 'hello'?" in managed.ctl("unmount", "helo", status=1).stderr
        managed.ctl("status", "nonesuch", status=1)
        managed.ctl("frobnicate", status=2)
        managed.ctl("mount", status=2)
        managed.ctl("unmount", "hello", "--lazy", "--abort", status=2)
        before = json.loads(managed.ctl("--json", "status", "hello").stdout)
        after = json.loads(managed.ctl("status", "hello", "--json").stdout)
        assert before["mounts"][0]["pid"] == after["mounts"][0]["pid"]
        for verb in (
            "status",
            "lookups",
            "mount",
            "unmount",
            "restart",
            "reload",
            "types",
            "logs",
        ):
            assert "Usage: fusedctl" in managed.ctl(verb, "--help").stdout
        names = [one["name"] for one in managed.json("types")["types"]]
        assert names[:3] == ["static", "memory", "passthrough"]
        assert managed.json("schema")["title"] == "fused.yaml"
        assert managed.json("stats", "hello")["operations"]
