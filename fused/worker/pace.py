"""Processors are kept awake while requests flow.

A request of one client wakes two processors in turn, the worker's and the client's.  In a virtual
machine an idle processor sleeps in the host, which takes 25 to 35 microseconds to wake it, more
than the request itself; the guest's idle governor for that case, haltpoll, polls instead of
sleeping as long as somebody asks for a latency of zero (PM QoS, Documentation/power/
pm_qos_interface.rst).  So this is asked for when requests come quickly, and no longer when they
stop.  Where there is another governor, or no access to the device, nothing is done: idle states
of real processors last microseconds, and their power is worth more.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable

DEVICE = "/dev/cpu_dma_latency"
GOVERNOR = "/sys/devices/system/cpu/cpuidle/current_governor"
TRIAL = 0.002  # seconds after the first request, in which QUICK more have to come
WINDOW = 0.02  # seconds, in each of which QUICK more have to come
QUICK = 8


class Pace:
    """How quickly requests come.  `quiet` is true when a request should be told of by `stir`.

    `latest()` is the highest request number so far; the kernel's numbers go up by two.
    """

    def __init__(self, latest: Callable[[], int]) -> None:
        self.quiet = False
        self._latest = latest
        self._stirred = threading.Event()

    @staticmethod
    def useful() -> bool:
        """Whether processors here sleep in a host, and may be asked not to."""
        try:
            with open(GOVERNOR, encoding="ascii") as file:
                return file.read().strip() == "haltpoll" and os.access(DEVICE, os.W_OK)
        except OSError:
            return False

    def stir(self) -> None:
        """A request has come after a pause."""
        self.quiet = False
        self._stirred.set()

    def _quick(self, seconds: float) -> bool:
        before = self._latest()
        time.sleep(seconds)
        return self._latest() - before >= 2 * QUICK

    def watch(self) -> None:
        """Keep processors awake when it pays, until the process ends."""
        while True:
            self._stirred.clear()
            self.quiet = True
            self._stirred.wait()
            if self._quick(TRIAL):
                with contextlib.suppress(OSError):
                    fd = os.open(DEVICE, os.O_WRONLY | os.O_CLOEXEC)
                    try:
                        os.write(fd, bytes(4))  # microseconds, as a 32-bit number
                        while self._quick(WINDOW):
                            pass
                    finally:
                        os.close(fd)
