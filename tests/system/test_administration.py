"""What an administrator does in a day: install, enable, look, edit, reload, stop, reboot."""

import json

import pytest

from system.administrator import CONFIG, MOUNTS, Fused
from system.machine import Machine, wait_until

pytestmark = pytest.mark.timeout(300)
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534")


def test_enable_brings_up_the_autostart_mounts_and_no_others(fused: Fused) -> None:
    units = ("fused.service", "fused.socket", "fused.target")
    fused.machine.run("systemctl", "is-enabled", *units)
    # `enable --now` waits for the service alone.
    active = ("systemctl", "is-active", "--quiet", *units)
    wait_until(lambda: fused.machine.run(*active, check=False).returncode == 0, 10, "the units")
    assert [fused.state(name) for name in MOUNTS] == ["active"] * len(MOUNTS)
    assert fused.state("later") == "inactive"
    assert fused.machine.output("cat", "/mnt/hello/message") == "hello world"


def test_status_and_systemd_agree(fused: Fused) -> None:
    for name in MOUNTS:
        status = fused.status(name)
        assert status["state"] == "serving"
        assert status["pid"] == fused.pid(name)
        assert status["unit"] == f"fused@{name}.service"
        assert status["mountpoint"] == f"/mnt/{name}"
    assert fused.ctl("status", "--check")[0] == 0
    assert fused.machine.show("fused@hello.service", "StatusText")


def test_users_other_than_root_can_use_the_mounts(machine: Machine) -> None:
    assert machine.output(*NOBODY, "--clear-groups", "cat", "/mnt/hello/message") == "hello world"
    machine.run("chmod", "1777", "/mnt/scratch")
    machine.run(*NOBODY, "--clear-groups", "touch", "/mnt/scratch/mine")
    assert machine.output("stat", "-c", "%u", "/mnt/scratch/mine") == "65534"
    machine.run("rm", "/mnt/scratch/mine")


def test_everybody_may_look_but_only_root_and_group_fused_may_steer(fused: Fused) -> None:
    run = fused.machine.run
    assert "serving" in run(*NOBODY, "--clear-groups", "fusedctl", "status").stdout
    pid = fused.pid("hello")
    refused = run(*NOBODY, "--clear-groups", "fusedctl", "restart", "hello", check=False)
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert fused.pid("hello") == pid
    run(*NOBODY, "--groups", "fused", "fusedctl", "restart", "hello")
    assert fused.pid("hello") != pid


@pytest.mark.parametrize(("name", "kind"), [("hello", "static"), ("mirror", "passthrough")])
def test_journal_entries_carry_mount_and_type(machine: Machine, name: str, kind: str) -> None:
    fields = (f"FUSED_MOUNT={name}", f"FUSED_TYPE={kind}")
    wait_until(lambda: machine.output("journalctl", "-q", *fields), 10, "entries")
    assert machine.output("journalctl", "-q", "-u", f"fused@{name}", *fields)


def test_logs_shows_the_journal_of_one_mount(fused: Fused) -> None:
    text = fused.ctl("logs", "hello")[1]
    assert "hello" in text
    assert "scratch" not in text


def test_reload_applies_the_difference_and_leaves_the_rest_alone(fused: Fused) -> None:
    before = fused.pids()
    more = "  extra:\n    type: static\n    mountpoint: /mnt/extra\n    files: {a: b}\n"
    fused.configure(CONFIG + more)
    fused.machine.run("systemctl", "reload", "fused")
    fused.wait_until_serving("extra")
    assert fused.machine.output("cat", "/mnt/extra/a") == "b"
    fused.configure(CONFIG)
    fused.machine.run("systemctl", "reload", "fused")
    wait_until(lambda: "/mnt/extra" not in fused.mounted(), 30, "'extra' to be unmounted")
    assert fused.pids() == before


def test_reload_refuses_a_bad_config_whole(fused: Fused) -> None:
    before = fused.pids()
    fused.configure(CONFIG.replace("hello world", "changed").replace("size: ", "sise: "))
    assert fused.machine.run("systemctl", "reload", "fused", check=False).returncode == 1
    status, text = fused.ctl("reload", check=False)
    assert status == 1
    assert "/etc/fused.yaml:11:5: mounts.scratch.sise" in text
    assert "size" in text.split("sise", 1)[1]
    assert fused.machine.show("fused.service", "ActiveState") == "active"
    assert fused.pids() == before
    assert fused.machine.output("cat", "/mnt/hello/message") == "hello world"
    fused.configure(CONFIG)
    fused.machine.run("systemctl", "reload", "fused")
    assert fused.pids() == before


def test_stop_unmounts_and_start_mounts_again(fused: Fused) -> None:
    run = fused.machine.run
    for name in MOUNTS:
        run("systemctl", "stop", f"fused@{name}")
        assert f"/mnt/{name}" not in fused.mounted()
        assert fused.state(name) == "inactive"
        assert fused.status(name)["state"] == "stopped"
        run("systemctl", "start", f"fused@{name}")
        assert fused.status(name)["state"] == "serving"


def test_umount_ends_the_worker_in_peace(fused: Fused) -> None:
    fused.machine.run("umount", "/mnt/hello")
    wait_until(lambda: fused.state("hello") == "inactive", 10, "the worker to end")
    fused.ctl("mount", "hello")


def test_stopping_the_target_unmounts_everything(fused: Fused) -> None:
    fused.machine.run("systemctl", "stop", "fused.target")
    wait_until(lambda: not fused.mounted(), 20, "the mounts to go")
    fused.ctl("mount", *MOUNTS)
    fused.machine.run("systemctl", "start", "fused.target")


def test_busy_unmount_is_refused_and_names_who_is_there(fused: Fused) -> None:
    with fused.machine.process("sh", "-c", "cd /mnt/scratch; echo $$; exec cat") as process:
        assert process.stdout
        pid = process.stdout.readline().strip()
        status, text = fused.ctl("unmount", "scratch", check=False)
        assert status == 1
        assert f"cat({pid}: cwd)" in text
        assert fused.status("scratch")["state"] == "serving"
        fused.machine.run("touch", "/mnt/scratch/alive")
    fused.machine.run("rm", "/mnt/scratch/alive")


def test_stop_of_a_busy_mount_waits_then_detaches(fused: Fused) -> None:
    with fused.machine.process("sh", "-c", "cd /mnt/scratch; echo $$; exec cat") as process:
        assert process.stdout
        pid = process.stdout.readline().strip()
        fused.machine.run("systemctl", "stop", "fused@scratch")
        assert "/mnt/scratch" not in fused.mounted()
        assert fused.state("scratch") == "inactive"
    log = fused.machine.output("journalctl", "-q", "-b", "-u", "fused@scratch", "-n", "20")
    assert f"cat({pid}: cwd)" in log
    fused.machine.run("systemctl", "start", "fused@scratch")


def test_a_drop_in_limits_memory(fused: Fused) -> None:
    run = fused.machine.run
    directory = "/etc/systemd/system/fused@scratch.service.d"
    fused.machine.write(f"{directory}/memory.conf", "[Service]\nMemoryMax=256M\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "fused@scratch")
    group = fused.machine.show("fused@scratch.service", "ControlGroup")
    limits = (
        f"memory{group}/memory.limit_in_bytes",
        f"unified{group}/memory.max",
        f"{group}/memory.max",
    )
    paths = [f"/sys/fs/cgroup/{limit.lstrip('/')}" for limit in limits]
    found = run("sh", "-c", 'cat "$@" 2>/dev/null', "sh", *paths, check=False).stdout.split()
    assert found == [str(256 << 20)]
    run("rm", "-r", directory)
    run("systemctl", "daemon-reload")


def test_device_nodes_can_be_made_and_used_though_the_worker_may_open_none(fused: Fused) -> None:
    machine = fused.machine
    for name in ("scratch", "mirror", "plain"):
        node = f"/mnt/{name}/zero"
        machine.run("mknod", node, "c", "1", "5")
        machine.run("dd", f"if={node}", "of=/dev/null", "bs=4k", "count=1")
        machine.run("rm", node)


def test_another_unit_can_require_a_mount(fused: Fused) -> None:
    machine = fused.machine
    machine.run("systemctl", "stop", "fused@hello")
    unit = "[Unit]\nRequires=fused@hello.service\nAfter=fused@hello.service\n"
    service = "[Service]\nType=oneshot\nExecStart=cat /mnt/hello/message\n"
    machine.write("/run/systemd/system/reader.service", unit + service)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "reader")
    assert "hello world" in machine.output("journalctl", "-q", "-b", "-u", "reader", "-o", "cat")


def test_the_machine_boots_with_its_mounts_and_goes_down_in_order(fused: Fused) -> None:
    machine = fused.machine
    machine.run("sh", "-c", "echo kept > /mnt/plain/file")
    machine.reboot()
    assert machine.show("fused.target", "ActiveState") == "active"
    assert machine.failed() == set()
    assert [fused.state(name) for name in MOUNTS] == ["active"] * len(MOUNTS)
    assert machine.output("cat", "/mnt/plain/file") == "kept"
    machine.run("rm", "/mnt/plain/file")
    entered = "ActiveEnterTimestampMonotonic"
    reached = int(machine.show("remote-fs.target", entered))
    assert all(int(machine.show(f"fused@{name}.service", entered)) < reached for name in MOUNTS)
    last = machine.output("journalctl", "-q", "-b", "-1", "-o", "json", "-u", "fused@*")
    entries = [json.loads(line) for line in last.splitlines()]
    assert not [entry["MESSAGE"] for entry in entries if int(entry["PRIORITY"]) <= 3]
