"""fused: systemd gets to manage Python file systems the way it manages services.

    /etc/fused.yaml --> fused.service (manager) --asks--> systemd --> fused@mirror.service (worker)
                              ^    | reads                                  | writes     | llfuse
     fusedctl --- Varlink ----+    +----> /run/fused/mirror/ledger <--------+            v
                                                 fd store of PID 1 holds   /dev/fuse connection

An administrator describes mounts in `/etc/fused.yaml`.  Each runs as a worker process of its own
(`fused.worker`), started by a launcher (`fused.launcher`: systemd's units, or children of the
manager).  The manager (`fused.manager`) keeps the real mounts equal to the described ones and
answers the control socket (`fused.control`), whose client is `fusedctl` (`fused.cli`).

A mount outlives its worker: the kernel's connection is kept in the fd store, all that a successor
has to know is in the ledger (`fused.ledger`), a file that the worker maps and writes with plain
stores and that everybody else may read at any time without asking.
"""

__version__ = "0.1.0"
