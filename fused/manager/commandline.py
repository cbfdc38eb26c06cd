"""The command line of the manager."""

import json
import logging
import os
import signal
import sys
import traceback

import click

from fused import __version__
from fused.errors import FusedError
from fused.manager import logs


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--config", metavar="FILE", help="What to mount.  [default: /etc/fused.yaml]")
@click.option("--runtime-dir", metavar="DIR", help="Sockets and ledgers.  [default: /run/fused]")
@click.option(
    "--launcher",
    type=click.Choice(["auto", "systemd", "local"]),
    default="auto",
    help="Who runs the workers; auto is systemd when fused is a unit itself.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    help="The least important messages to log.",
)
@click.option("--check", is_flag=True, help="Only check the configuration.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of the configuration.")
@click.version_option(__version__, prog_name="fused")
def manager(
    config: str | None,
    runtime_dir: str | None,
    launcher: str,
    log_level: str,
    check: bool,
    schema: bool,
) -> None:
    """Manage the mounts of /etc/fused.yaml, in the foreground.

    `fused worker NAME` is one worker; `fusedctl` shows and steers what runs.
    """
    if schema or check:  # whoever reads that may stop reading
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    logs.set_up(log_level)
    path = os.path.abspath(config or os.environ.get("FUSED_CONFIG") or "/etc/fused.yaml")
    directory = runtime_dir or os.environ.get("FUSED_RUNTIME_DIR") or "/run/fused"
    try:
        if schema:
            _schema()
        elif check:
            _check(path)
        else:
            _manage(path, os.path.abspath(directory), launcher)
    except FusedError as error:
        print(f"fused: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except Exception:
        traceback.print_exc()
        sys.exit(4)


def _schema() -> None:
    from fused.config import schema

    print(json.dumps(schema(), indent=2))


def _check(path: str) -> None:
    from fused.config import check

    problems = check(path)
    if problems:
        print("\n".join(problems))
        sys.exit(1)


def _manage(path: str, directory: str, launcher: str) -> None:
    from fused.cli.tables import print_status
    from fused.launcher import suitable
    from fused.manager.process import Settings, run

    kind = suitable() if launcher == "auto" else launcher
    settings = Settings(path, directory, kind)
    # Under systemd nobody looks at the manager's output; `fusedctl status` says the same.
    run(settings, print_status if kind == "local" else lambda _: None)
    logging.getLogger(__name__).info("ended")
