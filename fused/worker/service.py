"""The life of a worker: fresh mount or takeover, serving, and its end."""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from fused import filesystems, mountinfo, notify
from fused.errors import FusedError
from fused.filesystems.survival import Features
from fused.ledger import layout as at
from fused.ledger.layout import State
from fused.ledger.writer import Ledger
from fused.spec import MountSpec
from fused.worker import connection as wire
from fused.worker import log as worker_log
from fused.worker import takeover, watch
from fused.worker.backing import Backings
from fused.worker.crew import Crew
from fused.worker.interposer import Interposer
from fused.worker.lanes import Lanes
from fused.worker.pace import Pace
from fused.worker.record import WorkerRecord
from fused.worker.session import Session

log = logging.getLogger("fused.worker")
CONNECTION, REQUESTS = "connection", "requests"  # in the fd store
EX_SOFTWARE = 70  # sysexits.h: a bug
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP}


class Service:
    """One mount being served by this process.

    The main thread is llfuse's.  A second one, the conductor, brings the mount into service, a
    third watches that requests move, and a fourth waits for signals.
    """

    def __init__(self, mount: MountSpec, directory: str, descriptors: dict[str, int]) -> None:
        self.directory = directory
        self.begun = time.monotonic()
        self.descriptors = descriptors
        self.fd = descriptors.pop(CONNECTION, -1)
        self.fs: Any = filesystems.load(mount.type)(**filesystems.arguments(mount.options))
        read_only = mount.read_only or getattr(self.fs, "read_only", False)
        self.mount = mount._replace(read_only=read_only)
        self.features: Features = getattr(self.fs, "features", Features())
        self.heir: takeover.Inheritance | None = None
        self.resumable = False  # by a successor, if this worker ends now
        self.ending = False
        self._end = threading.Lock()
        self._interrupted: list[str] = []
        self.ledger: Ledger
        self.interposer: Interposer
        self.session: Session

    # -- the way into service --------------------------------------------------------------------

    def take_over(self) -> None:
        """Go on with the predecessor's connection.  Any exception: it cannot be done."""
        path = os.path.join(self.directory, "ledger")
        requests = self.descriptors.pop(REQUESTS, None)
        self.heir = takeover.inherit(self.mount, self.fs, self.fd, path, requests)
        self.ledger, self.resumable = self.heir.ledger, True
        self._attach()
        self.lanes.expect(self.heir.lost)
        self.backings.drop_lost(
            notes.opened[0] for notes in self.heir.lost.values() if notes.opened
        )
        self.fs.restore(self.ledger.inodes, self.ledger.handles)
        self._interpose()

    def open(self) -> None:
        """Make the mount afresh."""
        wanted = sum(getattr(wire, name) for name in self.features.flags)
        os.makedirs(self.directory, mode=0o755, exist_ok=True)
        self.fd, minor, features = wire.open_connection(self.mount, wanted)
        try:
            self.ledger = Ledger.create(os.path.join(self.directory, "ledger"), minor, features)
            self._attach()
            self._interpose()
        except BaseException:
            self.give_up()
            raise
        if self._survivor and self.mount.on_crash == "resume":
            notify.store(REQUESTS, self.ledger.requests.fd)
            notify.store(CONNECTION, self.fd)

    @property
    def _survivor(self) -> bool:
        return hasattr(self.fs, "restore")

    def _attach(self) -> None:
        self.lanes = Lanes(self.ledger)
        self.threads = self.mount.threads or self.features.threads
        self.crew = Crew(self.fd, self.threads) if self.features.relieved else None
        self.backings = Backings(self.fd, self.ledger)
        if self._survivor:
            record = WorkerRecord(self.ledger, self.lanes, self.fd, self.crew, self.backings)
            self.fs.attach(record, self.descriptors)
        else:
            self.fs.init()

    def _interpose(self) -> None:
        trusted = type(self.fs).__module__.startswith("fused.filesystems.")
        self.pace = Pace(self.ledger.latest)
        self.interposer = Interposer(
            self.fs,
            self.ledger,
            self.lanes,
            trusted,
            self._damaged,
            self.pace,
            self.crew,
            self.backings,
        )
        self.session = Session(self.interposer, self.fd, self.threads)

    def give_up(self) -> None:
        """Abort the connection and detach the mount: nobody hangs on it."""
        mount = mountinfo.at(self.mount.mountpoint)
        if mount is not None and mount.source == self.mount.name:
            mountinfo.abort(mount.minor)
            mountinfo.detach(self.mount.mountpoint)
        notify.unstore(CONNECTION)
        notify.unstore(REQUESTS)
        os.close(self.fd)

    def run(self) -> None:
        """Start the threads, and serve until the connection has ended."""
        self._start_thread("signals", self.on_signals)
        self._start_thread("conductor", self._conduct)
        self.session.serve()
        self.ended()

    def _start_thread(self, name: str, work: Callable[[], None]) -> None:
        """Nobody waits for these threads: if one fails, so does the worker."""

        def run() -> None:
            try:
                work()
            except FusedError as error:
                self.fail(str(error))
            except BaseException as error:
                log.critical("the worker's thread %r failed", name, exc_info=error)
                self.fail(repr(error), EX_SOFTWARE)

        threading.Thread(target=run, name=name, daemon=True).start()

    def _conduct(self) -> None:
        """The conductor: from attached to serving."""
        self.lanes.assign(self.session.learn_buffers())
        self._start_thread("watch", watch.Watch(self).watch)
        if self.heir is not None:
            takeover.serve_resent(self.heir, self.session, self.interposer, self.fd)
        else:
            self.session.ask_root()
        if self.crew is not None:
            self.crew.connect()
        self.session.connect()
        if self.pace.useful():
            self._start_thread("pace", self.pace.watch)
        self._ready()

    def _ready(self) -> None:
        took = time.monotonic() - self.begun
        self.ledger.set_state(State.SERVING)
        self.resumable = self._survivor and self.mount.on_crash == "resume"
        what = f"serving {self.mount.type} on {self.mount.mountpoint}"
        if self.heir is not None:
            log.warning(
                "worker %d has ended: the mount was resumed %.0f ms after this one began, "
                "%d requests were under way%s",
                *(self.ledger.predecessor, took * 1000, len(self.heir.resent)),
                "".join(f", {name}" for name in self._interrupted),
            )
        else:
            log.info("%s", what)
        notify.notify(
            "READY=1", f"STATUS={what}", f"WATCHDOG_USEC={int(self.mount.watchdog * 1e6)}"
        )

    # -- the way out -----------------------------------------------------------------------------

    def fail(self, sentence: str, status: int = 1) -> NoReturn:
        """The mount cannot go on in this process: say why, and end."""
        self.ledger.set_error(sentence)
        self.ledger.set_state(State.FAILED)
        print(f"fused: {sentence}", file=sys.stderr, flush=True)
        notify.notify(f"STATUS={sentence.splitlines()[0]}")
        if not self.resumable:
            self.give_up()
        os._exit(status)

    def _damaged(self, sentence: str) -> None:
        """The ledger cannot be trusted any more: have the successor make the mount afresh."""
        self.ledger.words[at.FORMAT_WORD] = 0
        self.resumable = False
        self.fail(sentence)

    def on_signals(self) -> None:
        """The signal thread."""
        while True:
            number = signal.sigwait(SIGNALS)
            if number == signal.SIGUSR2:
                os._exit(0)
            if number in (signal.SIGTERM, signal.SIGINT) and not self.ending:
                self.ending = True
                self._start_thread("stop", self._stop)

    def _stop(self) -> None:
        from fused.worker import stop

        self.ledger.set_state(State.STOPPING)
        stop.unmount(self.mount, self.ledger.minor)
        self.ended()

    def ended(self) -> None:
        """The mount has ended: tidy up and end the process.  Of several threads the first does."""
        self._end.acquire()
        try:
            self.fs.destroy()
        except Exception as error:
            log.error("destroy() failed", exc_info=error)
        self.ledger.set_state(State.STOPPED)
        notify.notify("STOPPING=1", f"STATUS=unmounted {self.mount.mountpoint}")
        log.info("unmounted")
        os._exit(0)


def serve(mount: MountSpec, directory: str) -> int:
    """Bring `mount` into service and serve it; returns when the connection has ended."""
    faulthandler.enable()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    signal.signal(signal.SIGUSR1, lambda *_: None)  # llfuse sends it to its threads in the end
    worker_log.set_up(mount.name, mount.type, mount.log_level)
    notify.notify(f"STATUS=starting {mount.type} on {mount.mountpoint}")
    service = _bring_up(mount, directory)
    service.run()
    return 0


def _bring_up(mount: MountSpec, directory: str) -> Service:
    descriptors = notify.listen_fds()
    service = Service(mount, directory, dict(descriptors))
    reason = ""
    if service.fd >= 0:
        try:
            service.take_over()
            return service
        except Exception as error:
            known = isinstance(error, FusedError)
            reason = str(error) if known else repr(error)
            log.error("the mount cannot be resumed and is made afresh: %s", reason,
                      exc_info=None if known else error)  # fmt: skip
            service.give_up()
            descriptors.pop(CONNECTION)
            if (requests := descriptors.pop(REQUESTS, None)) is not None:
                os.close(requests)
            service = Service(mount, directory, descriptors)
    elif wire.is_left_behind(mount):
        reason = takeover.obstacle(mount, service.fs) or "nobody has kept its connection"
        log.warning("a dead worker's mount is made afresh: %s", reason)
    service.open()
    if reason:
        service.ledger.set_error(f"made afresh: {reason}")
    return service
