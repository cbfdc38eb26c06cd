"""The ledger: one memory-mapped file per mount with all that must outlive its worker.

The worker writes it with plain stores (`fused.ledger.writer`), everybody else reads it with
pread(2) (`fused.ledger.reader`) whenever they like: while the worker serves, hangs, or is dead.

Rules of the file
- It is a sparse file on a tmpfs, native byte order, of 8-byte words; never grown or shrunk, so no
  mapping of it can run over its end.  Space is reserved (posix_fallocate) before it is stored to:
  a full tmpfs is an OSError in one request, not a SIGBUS.
- A kill may come between any two stores.  So a record is valid only by its commit word (an inode's
  node id, a handle's number, a request's `unique`), which is one store: last when the record is
  made, first when it is removed.  What must change together lies in one word, or in a new record.
- Everything a restore relies on carries a check (a CRC, or bits derived from the value): flipped
  bits are found and end in LedgerDamaged, never in a wrong answer.

Layout, in this order: header, request slots, operation counters, handle table, inode table.
"""

from fused.ledger.layout import FORMAT, OPERATIONS, State

__all__ = ["FORMAT", "OPERATIONS", "State"]
