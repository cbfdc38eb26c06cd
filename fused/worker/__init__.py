"""The worker: one process, one mount, one llfuse.

It has no API.  What there is to see is in its ledger; what there is to do goes through the kernel
(umount2, abort), signals and sd_notify:

- SIGTERM, SIGINT: unmount cleanly and end; a busy mount is waited for, then detached.
- SIGUSR2: end at once and leave the mount to a successor.  Like any other death, only announced.
- The connection ends (somebody unmounted or aborted it): end.

Exit status: 0 done; 1 failed, with a sentence on stderr and as STATUS=; 70 a bug, with its
traceback; 78 the configuration is wrong, so that starting again is of no use.
"""

import contextlib
import os
import sys

from fused import notify, spec
from fused.errors import ConfigError, FusedError, WorkerFailed
from fused.spec import MountSpec

EX_SOFTWARE, EX_CONFIG = 70, 78  # sysexits.h


def run(name: str, config: str, runtime_dir: str) -> int:
    """Serve the mount `name` until it is unmounted or handed over; the exit status."""
    directory = os.path.join(runtime_dir, name)
    try:
        mount = find_spec(name, config, directory)
        from fused.worker import service

        return service.serve(mount, directory)
    except FusedError as error:
        report(str(error))
        return EX_CONFIG if isinstance(error, ConfigError) else 1
    except Exception as error:
        import traceback

        traceback.print_exc()
        report(f"the worker failed: {error!r}")
        return EX_SOFTWARE


def report(sentence: str) -> None:
    """Say why the worker ends: on stderr and to the supervisor."""
    print(f"fused: {sentence}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        notify.notify(f"STATUS={sentence.splitlines()[0]}")


def find_spec(name: str, config: str, directory: str) -> MountSpec:
    """The saved spec while the configuration is as it was, else a new one from the configuration.

    A configuration that has become wrong does not replace one that works."""
    saved = spec.load(directory)
    if saved is not None and saved[1] == spec.stamp([path for path, *_ in saved[1]]):
        return saved[0]
    from fused.config import load

    try:
        loaded = load(config)
    except ConfigError as error:
        if saved is None:
            raise
        report(f"keeping the former configuration of {name!r}: {error}")
        return saved[0]
    if name not in loaded.mounts:
        known = ", ".join(sorted(loaded.mounts)) or "none"
        raise WorkerFailed(f"no mount {name!r} in {config}; there are: {known}")
    spec.save(directory, loaded.mounts[name], loaded.stamp)
    return loaded.mounts[name]
