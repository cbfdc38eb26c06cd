"""What handlers must return.  llfuse ends the whole mount over a wrong type; here it is an error
of one request.  Only results of types that do not come with fused are checked."""

from collections.abc import Callable, Iterator
from typing import Any

from llfuse import EntryAttributes, StatvfsData

Handler = Callable[..., Any]


def _instance(type_: type) -> Callable[[Any], Any]:
    def check(result: Any) -> Any:
        if not isinstance(result, type_):
            raise TypeError(f"the handler returned {result!r} instead of {type_.__name__}")
        return result

    return check


def _handle(result: Any) -> int:
    if type(result) is not int or not 0 <= result < 1 << 63:
        raise TypeError(f"the handler returned {result!r} instead of a file handle number")
    return result


def _created(result: Any) -> tuple[int, EntryAttributes]:
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"the handler returned {result!r} instead of handle and attributes")
    return _handle(result[0]), _instance(EntryAttributes)(result[1])


def _target(result: Any) -> bytes:
    if not isinstance(result, bytes) or b"\0" in result:
        raise TypeError(f"the handler returned {result!r} instead of a link target in bytes")
    return result


def _written(result: Any) -> int:
    if type(result) is not int or not 0 <= result < 1 << 31:
        raise TypeError(f"the handler returned {result!r} instead of a number of bytes")
    return result


def _names(result: Any) -> list[bytes]:
    names = list(result)
    for name in names:
        _instance(bytes)(name)
    return names


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "create": _created,
    "open": _handle,
    "opendir": _handle,
    "readlink": _target,
    "write": _written,
    "statfs": _instance(StatvfsData),
    "getxattr": _instance(bytes),
    "listxattr": _names,
    "access": bool,
} | dict.fromkeys(
    ["lookup", "getattr", "setattr", "mknod", "mkdir", "symlink", "link"],
    _instance(EntryAttributes),
)


def checked(name: str, function: Handler) -> Handler:
    """`function`, the handler of operation `name`, raising TypeError for a wrong result."""
    if name == "read":
        return _checked_read(function)
    if name == "readdir":
        return _checked_readdir(function)
    check = _CHECKS.get(name)
    if check is None:
        return function

    def handler(*args: Any) -> Any:
        return check(function(*args))

    handler.__name__ = name
    return handler


def _checked_read(function: Handler) -> Handler:
    def read(fh: int, offset: int, size: int) -> Any:
        result = function(fh, offset, size)
        view = memoryview(result)
        if not view.c_contiguous or view.nbytes > size:
            raise TypeError(f"the handler returned {view.nbytes} bytes of {size}, or not in a row")
        return result

    return read


def _checked_readdir(function: Handler) -> Handler:
    def readdir(fh: int, offset: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
        for name, attributes, following in function(fh, offset):
            _target(name)
            _instance(EntryAttributes)(attributes)
            if type(following) is not int or not 0 <= following < 1 << 63:
                raise TypeError(f"the handler returned {following!r} instead of an offset")
            yield name, attributes, following

    return readdir
