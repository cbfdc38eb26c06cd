"""The control server's limits, in one process."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fused.control import rights, server
from fused.errors import FusedError
from fused.launcher.local import LocalLauncher
from fused.manager.manager import Manager


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    """A server without mounts; the socket's path."""
    path = str(directory / "socket")
    async with LocalLauncher(str(directory), lambda _: ["false"]) as launcher:
        manager = Manager("/nowhere.yaml", str(directory), launcher, asyncio.Event())
        async with server.Server(manager, server.listen(path)):
            yield path


def test_a_client_that_does_not_finish_its_message_in_time_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MESSAGE_SECONDS", 0.2)

    async def main() -> None:
        async with serving(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"method"')
            assert await reader.read() == b""
            writer.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_a_client_that_does_not_take_its_answer_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MESSAGE_SECONDS", 0.5)
    call = b'{"method": "org.varlink.service.GetInterfaceDescription",'
    call += b'"parameters": {"interface": "io.fused.Manager"}}\0'

    async def main() -> None:
        async with serving(tmp_path) as path:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.setblocking(False)
                sock.connect(path)
                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    while True:
                        await asyncio.get_running_loop().sock_sendall(sock, call)

    asyncio.run(asyncio.wait_for(main(), 20))


def test_leaving_the_server_ends_connections_that_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"method": "io.fused.Manager.Status"}\0')
            assert await reader.readuntil(b"\0") == b'{"parameters":{"mounts":[]}}\0'
        assert await reader.read() == b""
        writer.close()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_the_socket_is_open_to_all_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        with server.listen(str(path)):
            assert path.stat().st_mode & 0o777 == 0o666
    assert list(tmp_path.iterdir()) == [path]


def test_a_path_that_is_too_long_for_a_socket_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FusedError, match="cannot listen on"):
        server.listen(str(tmp_path / ("x" * 200)))


@pytest.mark.parametrize(
    ("uid", "groups", "expected"),
    [(0, {0}, True), (1000, {1000}, False), (1000, {1000, 77}, True), (65534, set(), False)],
)
def test_root_and_the_group_operate(
    monkeypatch: pytest.MonkeyPatch, uid: int, groups: set[int], expected: bool
) -> None:
    monkeypatch.setattr(rights, "_group", lambda: 77)
    assert rights.Peer(1, uid, frozenset(groups)).may_operate() is expected


def test_without_the_group_only_root_operates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rights, "GROUP", "no-such-group")
    assert not rights.Peer(1, 1000, frozenset({1000})).may_operate()
    assert rights.Peer(1, 0, frozenset()).may_operate()
