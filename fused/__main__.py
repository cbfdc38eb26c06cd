"""`fused`: the manager, in the foreground; `fused worker NAME`: one worker.

A worker is parsed by hand and imports nothing that it does not need: programs may be waiting for
it.  Everything else is left to `fused.manager.commandline`.
"""

import os
import sys

WORKER_USAGE = "usage: fused worker NAME [--config FILE] [--runtime-dir DIR]"
DEFAULTS = {"--config": ("FUSED_CONFIG", "/etc/fused.yaml")}
DEFAULTS |= {"--runtime-dir": ("FUSED_RUNTIME_DIR", "/run/fused")}


def main() -> None:
    """The command line; exits with the status of the contract (`fused.errors`)."""
    if sys.argv[1:2] == ["worker"]:
        sys.exit(worker(sys.argv[2:]))
    from fused.manager.commandline import manager

    manager(prog_name="fused")


def worker(arguments: list[str]) -> int:
    """`fused worker`; the exit status."""
    names: list[str] = []
    options = {key: os.environ.get(name) or default for key, (name, default) in DEFAULTS.items()}
    rest = iter(arguments)
    for argument in rest:
        key, equals, value = argument.partition("=")
        if key in options:
            options[key] = value if equals else next(rest, "")
        elif argument in ("--help", "-h"):
            print(WORKER_USAGE)
            return 0
        else:
            names.append(argument)
    if len(names) != 1 or names[0].startswith("-") or not all(options.values()):
        print(WORKER_USAGE, file=sys.stderr)
        return 2
    from fused.worker import run

    config, runtime_dir = map(os.path.abspath, options.values())
    return run(names[0], config, runtime_dir)


if __name__ == "__main__":
    main()
