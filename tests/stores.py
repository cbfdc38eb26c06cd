"""Looking at the stores of persistent memory mounts."""

import json
import os
from pathlib import Path
from typing import Any

from supervised import Mount

BLOCK = 4096


def loops() -> dict[str, str]:
    """The loop devices there are, with their files."""
    found = {}
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        found[entry.parts[3]] = entry.read_text().strip()
    return found


def reconfigure(mount: Mount, **keys: Any) -> None:
    """Change keys of the mount's configuration (None: not given), as a reload would find them."""
    config = json.loads(mount.config.read_text())
    options = config["mounts"][mount.name]
    options.update(keys)
    config["mounts"][mount.name] = {key: v for key, v in options.items() if v is not None}
    mount.config.write_text(json.dumps(config))


def statvfs(mount: Mount) -> tuple[int, ...]:
    """Blocks, free, available; files, free, available."""
    st = mount.does(os.statvfs, mount.path)
    assert (st.f_bsize, st.f_frsize) == (BLOCK, BLOCK)
    return st.f_blocks, st.f_bfree, st.f_bavail, st.f_files, st.f_ffree, st.f_favail
