"""Asking a type that is not ours about its options, in a process of its own.

The child (`python -m fused.filesystems TYPE`) imports the type, so whatever its code does (fail,
hang, end the process, print) happens there.  It reads a JSON list of the options of several mounts
from stdin and writes one JSON object to stdout:

    {"error": "cannot import ..."}
    {"description": "...", "options": [OptionInfo...], "results": [[options, [Fault...]]...]}

Bytes travel as `fused.filesystems.pack` writes them.
"""

import json
import os
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

from fused.errors import FusedError
from fused.filesystems import pack
from fused.filesystems.faults import Fault
from fused.filesystems.options import OptionInfo

TIMEOUT = 10.0


class Answer(NamedTuple):
    """What a type says of itself, and of the options of each mount that was asked about."""

    description: str
    options: list[OptionInfo]
    results: list[tuple[dict[str, Any], list[Fault]]]  # options for MountSpec, what is wrong


def ask(type_name: str, mounts: list[dict[str, Any]]) -> Answer:
    """Describe a type and validate options for it; FusedError when the type cannot be used."""
    with tempfile.TemporaryFile() as question, tempfile.TemporaryFile() as reply:
        question.write(json.dumps([pack(options) for options in mounts]).encode())
        question.seek(0)
        try:  # files, not pipes: what the child leaves running must not keep us waiting
            ended = subprocess.run(
                [sys.executable, "-P", "-m", "fused.filesystems", type_name],
                stdin=question,
                stdout=reply,
                stderr=subprocess.DEVNULL,
                timeout=TIMEOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FusedError(f"{type_name!r} does not answer within {TIMEOUT:.0f} s") from None
        reply.seek(0)
        try:
            answer = json.loads(reply.read())
        except ValueError:
            status = ended.returncode
            raise FusedError(f"{type_name!r} ended its process with status {status}") from None
    if "error" in answer:
        raise FusedError(answer["error"])
    return Answer(
        answer["description"],
        [OptionInfo(*option) for option in answer["options"]],
        [
            (options, [Fault(tuple(where), kind, what) for where, kind, what in found])
            for options, found in answer["results"]
        ],
    )
