"""Which of malloc's memory is replaced by the buffers that outlive a worker."""

import ctypes
import mmap
import struct

from fused.ledger import requests
from fused.ledger.requests import BYTES, HEAD, STRIDE, RequestBuffers

IS_MMAPPED, PREV_INUSE = 2, 1  # malloc/malloc.c of glibc
BEHIND = b"another object" * 10


def _given(size: int) -> tuple[mmap.mmap, int]:
    """Memory as malloc gives it, with such a note of its size, at the beginning of a page; what
    lies behind a buffer in the heap; and the buffer's address."""
    memory = mmap.mmap(-1, STRIDE)
    struct.pack_into("=QQ", memory, 0, 0, size)
    memory[HEAD + BYTES : HEAD + BYTES + len(BEHIND)] = BEHIND
    first = ctypes.c_char.from_buffer(memory)
    return memory, ctypes.addressof(first) + HEAD


def test_a_buffer_with_pages_of_its_own_is_replaced() -> None:
    _memory, address = _given(STRIDE | IS_MMAPPED)
    buffers = RequestBuffers()
    used = buffers.put_at(3, address)
    used[:5] = b"hello"
    assert bytes(buffers[3][:6]) == b"hello\0"
    assert requests.mapped_size(address) == STRIDE


def test_a_buffer_in_the_heap_is_left_where_it_is() -> None:
    memory, address = _given(BYTES + HEAD | PREV_INUSE)
    buffers = RequestBuffers()
    used = buffers.put_at(3, address)
    used[:5] = b"hello"
    assert bytes(buffers[3][:5]) == bytes(5)
    assert memory[HEAD : HEAD + 6] == b"hello\0"
    assert memory[HEAD + BYTES :].startswith(BEHIND)
    assert requests.mapped_size(address) == 0
