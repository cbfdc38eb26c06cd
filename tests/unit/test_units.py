"""systemd's own opinion of the units, and the one rule that it cannot know."""

import subprocess
import sys
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "units"
# Each of these gives a service a mount namespace: nobody outside would see what it mounts.
HIDING = (
    "Private",
    "ProtectSystem",
    "ProtectHome",
    "ProtectKernel",
    "ProtectControlGroups",
    "ProtectProc",
    "ProcSubset",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "InaccessiblePaths",
    "BindPaths",
    "BindReadOnlyPaths",
    "TemporaryFileSystem",
    "RootDirectory",
    "RootImage",
    "DynamicUser",
    "MountFlags",
)


def test_systemd_analyze_has_nothing_to_say(tmp_path: Path) -> None:
    units = []
    for name in ("fused.service", "fused.socket", "fused.target", "fused@.service"):
        text = (UNITS / name).read_text()
        text = text.replace("@BIN@", str(Path(sys.executable).parent)).replace("@DOC@", "/doc")
        (tmp_path / name).write_text(text)
        units.append(str(tmp_path / name.replace("@", "@mirror")))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["fused.service", "fused@.service"])
def test_mounts_are_not_hidden_in_a_mount_namespace(name: str) -> None:
    for line in (UNITS / name).read_text().splitlines():
        assert not line.startswith(HIDING), line
