"""The manager's log: lines on stderr, with a priority for the journal when it reads them."""

import logging
import os

PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}  # sd-daemon(3)


class _ForJournal(logging.Formatter):
    """Each line begins with its priority."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{PRIORITIES.get(record.levelno, 5)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


def set_up(level: str) -> None:
    """Configure the root logger of the manager."""
    handler = logging.StreamHandler()
    st = os.fstat(2)
    if os.environ.get("JOURNAL_STREAM") == f"{st.st_dev}:{st.st_ino}":
        handler.setFormatter(_ForJournal("%(message)s"))
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("asyncio").setLevel(logging.WARNING)
