"""Between llfuse and every file system: counts, times, notes, and turns exceptions into errors.

llfuse calls the interposer's handlers under its global lock; each notes in the serving thread's
request slot what it is about to do, calls the file system, and notes what came out.  The order of
stores is what makes a kill at any point recoverable; fused.ledger has the rules.
"""

import errno
import faulthandler
import logging
import traceback
from collections.abc import Callable, Iterator
from time import monotonic_ns
from typing import Any

import llfuse
from llfuse import EntryAttributes, FUSEError

from fused.errors import LedgerDamaged
from fused.ledger import layout as at
from fused.ledger.layout import OPERATIONS
from fused.ledger.writer import Ledger
from fused.worker import replies
from fused.worker.backing import Backings
from fused.worker.crew import BODIES, Crew
from fused.worker.handlers import Handler, NotingHandlers
from fused.worker.lanes import MASK, Lanes
from fused.worker.pace import Pace

log = logging.getLogger("fused.worker")


class Interposer(llfuse.Operations):
    """The operations that llfuse is given, in front of `fs`.

    `trusted` types return what they should; results of others are checked.  `on_damage` is called
    when the ledger turns out to be damaged: the mount cannot go on.
    """

    def __init__(
        self,
        fs: Any,
        ledger: Ledger,
        lanes: Lanes,
        trusted: bool,
        on_damage: Callable[[str], Any],
        pace: Pace,
        crew: Crew | None = None,
        backings: Backings | None = None,
    ) -> None:
        self.fs, self.ledger, self.lanes, self._pace = fs, ledger, lanes, pace
        self._on_damage = on_damage
        self._local = lanes.local
        self._seen: set[tuple[str, str]] = set()
        noting = NotingHandlers(fs, ledger, lanes, self._failure)
        for name in OPERATIONS:
            function = getattr(fs, name)
            if not trusted:
                function = replies.checked(name, function)
            if name == "readdir":
                setattr(self, name, self._streamed(name, function))
            else:
                setattr(self, name, self._handler(name, noting.around(name, function)))
        if backings is not None and backings.enabled:
            self._answer_opens(backings)
        if crew is not None:
            for name, body in BODIES.items():
                setattr(self, name, self._relieved(getattr(self, name), body, crew))

    # -- one request -----------------------------------------------------------------------------

    def _handler(self, name: str, function: Handler) -> Handler:
        index = OPERATIONS.index(name)
        counters = self.ledger.counters(index)
        local, lanes, failure, pace = self._local, self.lanes, self._failure, self._pace
        operation, subject, since, unique_ = at.OPERATION, at.SUBJECT, at.SINCE_NS, at.UNIQUE
        histogram, longest, errors = at.HISTOGRAM, at.LONGEST, at.ERRORS

        def handler(first: Any = 0, *rest: Any) -> Any:
            try:
                lane = local.lane
            except AttributeError:
                lane = lanes.enter()
            if pace.quiet:
                pace.stir()
            slot = lane.slot
            start = monotonic_ns()
            slot[operation] = index
            slot[subject] = first if type(first) is int else 0
            slot[since] = start
            unique = lane.request[1]
            slot[unique_] = unique & MASK
            if unique > MASK:
                lanes.resume(lane, unique & MASK)
            try:
                return function(first, *rest)
            except BaseException as error:
                counters[errors] += 1
                raise failure(name, error) from None
            finally:
                took = monotonic_ns() - start
                slot[since] = 0
                counters[histogram + took.bit_length()] += 1
                if took > counters[longest]:
                    counters[longest] = took

        return handler

    def _streamed(self, name: str, function: Handler) -> Handler:
        """readdir: the work is done while llfuse iterates, and it may stop early."""
        begin = self._handler(name, lambda fh, offset: iter(function(fh, offset)))
        failure, counters = self._failure, self.ledger.counters(OPERATIONS.index(name))

        def handler(fh: int, offset: int) -> Iterator[tuple[bytes, EntryAttributes, int]]:
            entries = begin(fh, offset)
            try:
                yield from entries
            except GeneratorExit:
                raise
            except BaseException as error:
                counters[at.ERRORS] += 1
                raise failure(name, error) from None

        return handler

    def _answer_opens(self, backings: Backings) -> None:
        """Have opens answered with what llfuse cannot say."""
        local, plain_open, plain_create = self._local, self.open, self.create

        def open_(*args: Any) -> int:
            fh = plain_open(*args)
            backings.answer_open(local.lane.request[1], fh)
            return fh

        def create(*args: Any) -> tuple[int, EntryAttributes]:
            fh, entry = plain_create(*args)
            backings.answer_create(local.lane.request[1], fh, entry)
            return fh, entry

        self.open = open_  # type: ignore[method-assign, assignment]
        self.create = create  # type: ignore[method-assign, assignment]

    def _relieved(self, function: Handler, body: Callable[[Any], Any], crew: Crew) -> Handler:
        """A handler after which its thread may rest."""
        local, answer = self._local, crew.answer

        def handler(*args: Any) -> Any:
            result = function(*args)
            answer(local.lane.request[1], body, result)
            return result

        return handler

    def _failure(self, name: str, error: BaseException) -> FUSEError:
        """The error that the caller gets: a number from 1 to 511."""
        if isinstance(error, LedgerDamaged):
            self._on_damage(str(error))
        number = error.errno if isinstance(error, FUSEError | OSError) else None
        if number is None or not 1 <= number <= 511:
            self._log_once(name, error)
            number = errno.EIO
        return FUSEError(number)

    def _log_once(self, name: str, error: BaseException) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        if (key := (name, f"{type(error)} {where}")) not in self._seen:
            self._seen.add(key)
            log.error("%s failed with an unexpected exception; the caller gets EIO", name,
                      exc_info=error)  # fmt: skip

    def stacktrace(self) -> None:
        """`setfattr -n fuse_stacktrace` on the root: llfuse wants the stacks in the log."""
        faulthandler.dump_traceback()

    def destroy(self) -> None:
        """The worker calls the file system's own `destroy` when it ends."""
