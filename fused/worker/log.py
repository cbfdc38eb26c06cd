"""The worker's log: to the journal with the fields FUSED_MOUNT and FUSED_TYPE, else to stderr."""

import errno
import logging
import os
from collections.abc import Callable
from typing import Any

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class _Journal(logging.Handler):
    """systemd.journal's handler, imported with the first message: a takeover cannot wait."""

    def __init__(self, **fields: str) -> None:
        super().__init__()
        self._fields = fields
        self._handler: logging.Handler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._handler is None:
            from systemd.journal import JournalHandler

            self._handler = JournalHandler(SYSLOG_IDENTIFIER="fused", **self._fields)
        self._handler.emit(record)


def to_journal() -> bool:
    """Whether stderr is connected to the journal (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        st = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{st.st_dev}:{st.st_ino}"


def set_up(name: str, type_: str, level: str) -> None:
    """Configure the root logger of a worker process."""
    handler: logging.Handler
    if to_journal():
        handler = _Journal(FUSED_MOUNT=name, FUSED_TYPE=type_)
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(f"%(levelname)s: {name}: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(LEVELS.get(level, logging.INFO))
    library = logging.getLogger("llfuse")
    library.setLevel(logging.WARNING)
    library.error = _but_gone(library.error)  # type: ignore[method-assign]


def _but_gone(error: Callable[..., None]) -> Callable[..., None]:
    """`error`, a logger's method, without replies that found no request any more: a client was
    killed, or had its answer already.  There are many; a filter of logging's would take long."""
    gone = (os.strerror(errno.ENOENT),)

    def but_gone(message: object, *args: object, **keys: Any) -> None:
        if args != gone:
            error(message, *args, **keys)

    return but_gone
