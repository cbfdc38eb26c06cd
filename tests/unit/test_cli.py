"""What fusedctl prints, and the command lines that need no manager."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fused.__main__ import worker
from fused.cli import tables
from fused.cli.commands import fusedctl
from fused.control.types import MountStatus, Request

ROOT = Path(__file__).parents[2]


def a_mount(**fields: object) -> MountStatus:
    usual: dict[str, object] = {
        "name": "mirror",
        "type": "passthrough",
        "mountpoint": "/mnt/" + "long/" * 30,
        "state": "serving",
        "pid": 12,
        "uptime": 5.0,
        "restarts": 0,
        "knownInodes": 1,
        "lookupCount": 1,
        "openHandles": 0,
        "requests": 3,
        "errors": 0,
        "lastError": None,
        "unit": None,
        "log": None,
        "autostart": True,
        "requestsPerSecond": 0.5,
        "statusText": "",
        "features": [],
        "oldestRequest": None,
    }
    return MountStatus(**(usual | fields))  # type: ignore[arg-type]


def test_the_table_cuts_nothing_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_status([a_mount(), a_mount(name="other", state="failed", lastError="[red] why")])
    printed = capsys.readouterr().out
    assert "long/" * 30 in printed
    assert "other: [red] why" in printed
    assert len(printed.splitlines()[0]) < 400


def test_a_stuck_request_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    tables.print_status([a_mount(oldestRequest=Request("read", 7, 12.3, 1))])
    assert "mirror: read of inode 7 for 12.3 s, attempt 2" in capsys.readouterr().out
    tables.print_details(a_mount(oldestRequest=Request("read", 7, 12.3, 0)))
    assert "read of inode 7 for 12.3 s\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.2, "0s"),
        (59.4, "59s"),
        (61, "1min 1s"),
        (3700, "1h 1min"),
        (90000, "1d 1h"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert tables.duration(seconds) == text


def test_usage_errors_are_exit_status_2() -> None:
    for arguments in (["nonesuch"], ["mount"], ["lookups", "x", "--limit", "-1"], ["--nonesuch"]):
        assert CliRunner().invoke(fusedctl, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["--help"], 0),
        ([], 2),
        (["a", "b"], 2),
        (["--config"], 2),
        (["x", "--config"], 2),
        (["--nonesuch", "x"], 2),
        (["-x"], 2),
    ],
)
def test_the_workers_command_line(arguments: list[str], status: int) -> None:
    assert worker(arguments) == status


def test_the_worker_is_reached_without_heavy_imports() -> None:
    program = (
        "import sys; sys.argv[1:] = ['worker']\n"
        "import fused.__main__ as main\n"
        "try: main.main()\n"
        "except SystemExit as end: assert end.code == 2\n"
        "heavy = {'click', 'asyncio', 'pydantic', 'yaml', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=ROOT, stderr=subprocess.DEVNULL
    )


def fused(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fused", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)


def test_check_prints_the_problems_and_fails(tmp_path: Path) -> None:
    config = tmp_path / "fused.yaml"
    config.write_text("mounts: {x: {type: memory, mountpoint: relative}}\n")
    checked = fused("--check", "--config", str(config))
    assert checked.returncode == 1
    assert f"{config}:1:" in checked.stdout and "Traceback" not in checked.stderr
    config.write_text("mounts: {x: {type: memory, mountpoint: /x}}\n")
    assert fused("--check", "--config", str(config)).returncode == 0


def test_the_schema_is_json() -> None:
    assert json.loads(fused("--schema").stdout)["title"] == "fused.yaml"
    verb = subprocess.run(
        [sys.executable, "-m", "fused.cli", "schema"], capture_output=True, cwd=ROOT
    )
    assert json.loads(verb.stdout)["title"] == "fused.yaml"


def test_a_configuration_with_errors_ends_the_manager_with_its_lines(tmp_path: Path) -> None:
    done = fused(
        *("--launcher", "local", "--runtime-dir", str(tmp_path)),
        *("--config", str(tmp_path / "nonesuch.yaml")),
    )
    assert done.returncode == 1
    assert "nonesuch.yaml" in done.stderr and "Traceback" not in done.stderr
