"""One function a verb."""

import dataclasses
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import click

from fused import __version__
from fused.cli import tables
from fused.control import socket_path
from fused.control.client import Client
from fused.control.types import Inode, MountStatus
from fused.errors import FusedError, NoManager


class Options(NamedTuple):
    """What is said beside the verb."""

    runtime_dir: str
    as_json: bool


class Verbs(click.Group):
    """Turns exceptions into messages and exit statuses, here and nowhere else."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort):
            raise
        except FusedError as error:
            print(f"fusedctl: {error}", file=sys.stderr)
            sys.exit(error.exit_status)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(4)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--runtime-dir", metavar="DIR", help="Whose manager.  [default: /run/fused]")
@click.version_option(__version__, prog_name="fusedctl")
@click.pass_context
def fusedctl(ctx: click.Context, as_json: bool, runtime_dir: str | None) -> None:
    """Show and steer the mounts of fused."""
    directory = runtime_dir or os.environ.get("FUSED_RUNTIME_DIR") or "/run/fused"
    ctx.obj = Options(directory, as_json)


def verb(function: Callable[..., None]) -> click.Command:
    """A command whose first argument is Options; --json and --runtime-dir come after it, too."""

    @click.pass_obj
    def with_options(
        options: Options, /, as_json: bool, runtime_dir: str | None, **arguments: Any
    ) -> None:
        function(
            Options(runtime_dir or options.runtime_dir, as_json or options.as_json), **arguments
        )

    with_options.__doc__ = function.__doc__
    with_options.__dict__.update(function.__dict__)
    command = click.option("--json", "as_json", is_flag=True, help="Print JSON.")(with_options)
    command = click.option("--runtime-dir", metavar="DIR", hidden=True)(command)
    return fusedctl.command(function.__name__)(command)


names = click.argument("names", nargs=-1, required=True, metavar="NAME...")


@verb
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--check", is_flag=True, help="Exit with 1 unless all autostart mounts serve.")
def status(options: Options, names: tuple[str, ...], check: bool) -> None:
    """Show how the mounts are doing."""
    with _manager(options) as manager:
        mounts: list[MountStatus] = manager.call("Status", names=list(names))["mounts"]
    if options.as_json:
        _print_json({"mounts": mounts})
    elif len(names) == 1:
        tables.print_details(mounts[0])
    else:
        tables.print_status(mounts)
    if check and any(one.autostart and one.state != "serving" for one in mounts):
        sys.exit(1)


@verb
@click.argument("name")
@click.option("--limit", type=click.IntRange(0), metavar="N", help="Show at most N inodes.")
@click.option("--unlinked", is_flag=True, help="Only inodes without a name.")
@click.option(
    "--min", "minimum", type=click.IntRange(0), metavar="N", help="Only with N lookups or more."
)
def lookups(
    options: Options, name: str, limit: int | None, unlinked: bool, minimum: int | None
) -> None:
    """Show the inodes of a mount that the kernel knows."""
    inodes: list[Inode] = []
    total = 0
    with _manager(options) as manager:
        for part in manager.stream(
            "Lookups", name=name, limit=limit, unlinked=unlinked, minimum=minimum
        ):
            inodes += part["inodes"]
            total = part["totalLookups"]
    if options.as_json:
        _print_json({"mount": name, "totalLookups": total, "inodes": inodes})
    else:
        tables.print_inodes(inodes, total)


@verb
@names
def mount(options: Options, names: tuple[str, ...]) -> None:
    """Mount; returns when the mounts serve."""
    _for_each(options, names, "Mount")


@verb
@names
@click.option(
    "--wait", type=click.FloatRange(0), metavar="SECONDS", help="Wait for users to leave."
)
@click.option("--lazy", is_flag=True, help="Detach: users go on, nobody else finds it.")
@click.option("--abort", is_flag=True, help="Fail all requests and detach.")
def unmount(
    options: Options, names: tuple[str, ...], wait: float | None, lazy: bool, abort: bool
) -> None:
    """Unmount; a mount in use is refused and goes on serving."""
    if lazy + abort + (wait is not None) > 1:
        raise click.UsageError("--wait, --lazy and --abort exclude each other")
    _for_each(options, names, "Unmount", wait=wait, lazy=lazy, abort=abort)


@verb
@names
def restart(options: Options, names: tuple[str, ...]) -> None:
    """Have a new worker take over; users see a pause."""
    _for_each(options, names, "Restart")


@verb
def reload(options: Options) -> None:
    """Apply the configuration; one with errors is refused as a whole."""
    with _manager(options) as manager:
        done = manager.call("Reload")
    if options.as_json:
        _print_json(done)
    else:
        for what in ("stopped", "started", "remounted", "restarted"):
            for name in done[what]:
                print(f"{what} {name}")
    _fail([failure.message for failure in done["failed"]])


@verb
@click.argument("name")
def stats(options: Options, name: str) -> None:
    """Show what a mount was asked and how long it took."""
    with _manager(options) as manager:
        operations = manager.call("Stats", name=name)["operations"]
    if options.as_json:
        _print_json({"mount": name, "operations": operations})
    else:
        tables.print_operations(operations)


@verb
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("-n", "--lines", type=click.IntRange(0), default=100, help="How many to begin with.")
def logs(options: Options, name: str, follow: bool, lines: int) -> None:
    """Show the log of a mount."""
    with _manager(options) as manager:
        one: MountStatus = manager.call("Status", names=[name])["mounts"][0]
    if one.log is not None and not os.path.exists(one.log):
        raise FusedError(f"'{name}' has not been mounted yet, so it has no log")
    if one.log is not None:
        command = ["tail", f"--lines={lines}", *(["--follow=name"] if follow else []), one.log]
    else:
        form = "json" if options.as_json else "short"
        command = ["journalctl", f"--unit={one.unit}", f"--lines={lines}", f"--output={form}"]
        command += ["--follow"] if follow else ["--no-pager"]
    if options.as_json and one.log is not None:
        if follow:
            raise click.UsageError("--json and --follow do not go together with a log file")
        text = subprocess.run(command, check=True, capture_output=True).stdout.decode(
            errors="replace"
        )
        _print_json({"mount": name, "lines": text.splitlines()})
    else:
        _become(command)


@verb
def types(options: Options) -> None:
    """Show what can be mounted, and the options."""
    with _manager(options) as manager:
        found = manager.call("Types")["types"]
    if options.as_json:
        _print_json({"types": found})
    else:
        tables.print_types(found)


@verb
def schema(options: Options) -> None:
    """Print the JSON schema of the configuration; needs no manager."""
    _become([sys.executable, "-m", "fused", "--schema"])


def _manager(options: Options) -> Client:
    return Client(socket_path(options.runtime_dir))


def _for_each(options: Options, names: tuple[str, ...], method: str, **parameters: Any) -> None:
    """Call a method for each mount; go on after a failure."""
    done, problems = [], []
    with _manager(options) as manager:
        for name in names:
            try:
                done.append(manager.call(method, name=name, **parameters)["mount"])
            except NoManager:
                raise
            except FusedError as error:
                problems.append(str(error))
    if options.as_json:
        _print_json({"mounts": done})
    _fail(problems)


def _fail(problems: list[str]) -> None:
    if problems:
        raise FusedError("\n".join(problems))


def _become(command: list[str]) -> NoReturn:
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise FusedError(f"cannot run {command[0]}: {error.strerror}") from None


def _print_json(value: Any) -> None:
    print(json.dumps(value, default=dataclasses.asdict, ensure_ascii=False))
