"""The control socket: what it says of itself, who may do what, and clients that misbehave."""

import contextlib
import json
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import varlink
from asyncvarlink import VarlinkInterface
from forked import as_user
from managed import Managed
from supervised import wait_until

from fused.control import server, socket_path
from fused.control.client import Client
from fused.control.interface import ManagerInterface
from fused.errors import FusedError

NOBODY = 65534
HELLO = {"type": "static", "files": {"message": "hello world\n"}}


@pytest.fixture(scope="module")
def managed(place: Path) -> Iterator[Managed]:
    """A manager with one mount, for all tests of this module."""
    with Managed(place / "control", hello=HELLO) as one:
        yield one


def connect(managed: Managed) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(10)
    sock.connect(socket_path(str(managed.runtime_dir)))
    return sock


def answer(sock: socket.socket) -> dict[str, Any] | None:
    """The next reply, or None when the connection was ended."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while not received.endswith(b"\0"):
            more = sock.recv(65536)
            if not more:
                return None
            received += more
        reply = json.loads(received[:-1])
        assert isinstance(reply, dict)
        return reply
    return None


def call(method: str, more: bool = False, **parameters: Any) -> bytes:
    message: dict[str, Any] = {"method": method, "parameters": parameters}
    return json.dumps(message | ({"more": True} if more else {})).encode() + b"\0"


STATUS = call("io.fused.Manager.Status")


def answers_soon(managed: Managed) -> None:
    began = time.monotonic()
    with managed.client() as client:
        (mount,) = client.call("Status")["mounts"]
    assert mount.name == "hello"
    assert time.monotonic() - began < 1


def malformed() -> Iterator[bytes]:
    """Messages that no honest client sends, each without the final NUL."""
    whole = STATUS[:-1]
    yield from (whole[:length] for length in range(0, len(whole), 4))
    yield from (
        b"",
        b"null",
        b"[]",
        b"3",
        b'"text"',
        b"true",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"\x00\x00",
    )
    yield b"[" * 100_000
    yield b'{"method":' * 50_000
    yield b"9" * 100_000
    yield b'{"method": "io.fused.Manager.Status", "parameters": {"names": [' + b'"x",' * 9999
    yield from (
        json.dumps(one).encode()
        for one in (
            {"method": 3},
            {"method": None},
            {"method": ""},
            {"method": "Status"},
            {"method": "io.fused.Manager."},
            {"method": "io.fused.Manager.__init__"},
            {"method": "io.fused.Manager._operations"},
            {"method": "io.fused.Manager.render_interface_description"},
            {"method": "io.fused.Manager.Nonesuch"},
            {"method": "io.nonesuch.Status"},
            {"method": "io.fused.Manager.Status", "parameters": []},
            {"method": "io.fused.Manager.Status", "parameters": "x"},
            {"method": "io.fused.Manager.Status", "parameters": {"names": "hello"}},
            {"method": "io.fused.Manager.Status", "parameters": {"names": [None]}},
            {"method": "io.fused.Manager.Status", "parameters": {"names": [{"a": 1}]}},
            {"method": "io.fused.Manager.Status", "parameters": {"names": ["../../etc"]}},
            {"method": "io.fused.Manager.Status", "parameters": {"names": ["\0", "\udcff"]}},
            {"method": "io.fused.Manager.Status", "parameters": {"surplus": 1}},
            {"method": "io.fused.Manager.Status", "more": 1},
            {"method": "io.fused.Manager.Status", "more": True, "oneway": True},
            {"method": "io.fused.Manager.Status", "oneway": "yes"},
            {"method": "io.fused.Manager.Status", "upgrade": True},
            {"method": "io.fused.Manager.Lookups", "parameters": {"name": "hello"}},
            {"method": "io.fused.Manager.Lookups", "parameters": {}, "more": True},
            {"method": "io.fused.Manager.Mount", "parameters": {"name": 7}},
            {"method": "io.fused.Manager.Mount", "parameters": {"name": "a" * 500_000}},
            {"method": "io.fused.Manager.Unmount", "parameters": {"name": "x", "wait": "long"}},
            {"method": "org.varlink.service.GetInterfaceDescription"},
            {
                "method": "org.varlink.service.GetInterfaceDescription",
                "parameters": {"interface": "io.nonesuch"},
            },
        )
    )
    randomness = random.Random(7)
    yield from (randomness.randbytes(randomness.randrange(1, 3000)) for _ in range(60))


def test_malformed_messages_are_answered_with_an_error_or_dropped(managed: Managed) -> None:
    messages = list(malformed())
    assert len(messages) > 100
    answered = 0
    for message in messages:
        with connect(managed) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(message + b"\0")
            sock.shutdown(socket.SHUT_WR)
            reply = answer(sock)
            if reply is not None and "error" not in reply:
                answered += 1  # e.g. random parameters that happen to be right
    assert answered <= 2
    answers_soon(managed)
    assert managed.state("hello") == "serving"


def test_truncated_messages_and_vanishing_clients_leave_nothing(managed: Managed) -> None:
    before = count_descriptors(managed)
    for length in range(1, len(STATUS), 2):
        with connect(managed) as sock:
            sock.sendall(STATUS[:length])
    for _ in range(20):
        with connect(managed) as sock:
            sock.sendall(STATUS * 50)  # asked, and not waited for
    answers_soon(managed)
    wait_until(lambda: count_descriptors(managed) <= before, 10, "descriptors are closed")


def count_descriptors(managed: Managed) -> int:
    pid = int((managed.runtime_dir / "manager.lock").read_text())
    return len(os.listdir(f"/proc/{pid}/fd"))


def test_oversized_messages_are_dropped(managed: Managed) -> None:
    with connect(managed) as sock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for _ in range(64):
            sock.sendall(b"x" * (1 << 20))
        raise AssertionError("64 MiB were accepted")
    answers_soon(managed)


def test_floods_and_slow_clients_hinder_nobody(managed: Managed) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connect(managed)) for _ in range(10)]
        deaf = stack.enter_context(connect(managed))
        deaf.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                deaf.send(STATUS * 100)  # its answers pile up, unread
        for length in range(len(STATUS)):
            for sock in slow:
                sock.sendall(STATUS[length : length + 1])
            if length % 10 == 0:
                answers_soon(managed)
        assert all("parameters" in (answer(sock) or {}) for sock in slow)


def test_one_user_cannot_take_all_connections(managed: Managed) -> None:
    def crowd() -> bool:
        with contextlib.ExitStack() as stack:
            for _ in range(server.CONNECTIONS + 1):
                last = stack.enter_context(connect(managed))
            return answer(last) is None

    assert as_user(NOBODY, NOBODY, [], crowd)
    answers_soon(managed)
    wait_until(
        lambda: as_user(NOBODY, NOBODY, [], lambda: outcome(managed, "Status")) == "done",
        10,
        "its places are free again",
    )


def outcome(managed: Managed, method: str, **parameters: Any) -> str:
    try:
        with managed.client() as client:
            client.call(method, **parameters)
    except FusedError as error:
        return str(error)
    return "done"


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("Mount", {"name": "hello"}),
        ("Unmount", {"name": "hello"}),
        ("Restart", {"name": "hello"}),
        ("Reload", {}),
        ("Stats", {"name": "hello"}),
    ],
)
def test_only_operators_may_change_things(
    managed: Managed, method: str, parameters: dict[str, Any]
) -> None:
    refused = as_user(NOBODY, NOBODY, [], lambda: outcome(managed, method, **parameters))
    assert refused.startswith("permission denied")
    assert outcome(managed, "Restart", name="hello") == "done"


@pytest.mark.parametrize("method", ["Status", "Types"])
def test_anybody_may_look(managed: Managed, method: str) -> None:
    assert as_user(NOBODY, NOBODY, [], lambda: outcome(managed, method)) == "done"


def test_every_method_says_whether_it_is_for_anybody() -> None:
    open_to = {
        name
        for name in dir(ManagerInterface)
        if getattr(getattr(ManagerInterface, name), "open_to_anybody", False)
    }
    assert open_to == {"Status", "Types"}


def test_the_interface_describes_itself_to_a_foreign_client(managed: Managed) -> None:
    address = f"unix:{socket_path(str(managed.runtime_dir))}"
    with varlink.Client(address=address) as client, client.open("io.fused.Manager") as manager:
        status: Callable[..., Any] = manager.Status
        (mount,) = status()["mounts"]
        assert (mount["name"], mount["state"]) == ("hello", "serving")
        parts = list(manager.Lookups(name="hello", _more=True))
        assert parts[0]["inodes"][0]["inode"] == 1
        with pytest.raises(varlink.VarlinkError) as refused:
            manager.Mount(name="nonesuch")
        assert refused.value.error() == "io.fused.Manager.NoSuchMount"
    with connect(managed) as sock:
        sock.sendall(call("org.varlink.service.GetInfo"))
        info = (answer(sock) or {})["parameters"]
        assert info["interfaces"] == ["io.fused.Manager", "org.varlink.service"]
        sock.sendall(
            call("org.varlink.service.GetInterfaceDescription", interface="io.fused.Manager")
        )
        text = (answer(sock) or {})["parameters"]["description"]
    assert text == ManagerInterface.render_interface_description()


def test_every_field_method_and_error_of_the_interface_is_documented() -> None:
    lines = ManagerInterface.render_interface_description().splitlines()
    undocumented = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line.startswith(("type ", "method ", "error ", "  ")) and not line.startswith("  #")
        if not before.lstrip().startswith("#")
    ]
    assert undocumented == []
    assert issubclass(ManagerInterface, VarlinkInterface)


def test_a_client_without_a_manager_says_so(tmp_path: Path) -> None:
    with pytest.raises(FusedError, match=r"cannot reach the manager at .*nowhere"):
        Client(str(tmp_path / "nowhere")).__enter__()
