"""Where what lies in the ledger, for its writer and its reader.  Offsets count 8-byte words."""

from zlib import crc32

FORMAT = 0x31304C4445535546  # "FUSEDL01"; the last two characters are the format's version

OPERATIONS = (
    *("lookup", "forget", "getattr", "setattr", "readlink", "mknod", "mkdir", "unlink", "rmdir"),
    *("symlink", "rename", "link", "open", "read", "write", "flush", "release", "fsync"),
    *("opendir", "readdir", "releasedir", "fsyncdir", "statfs", "setxattr", "getxattr"),
    *("listxattr", "removexattr", "access", "create"),
)


class State:
    """What a worker is doing; the reader turns the number into the name."""

    NAMES = ("stopped", "starting", "serving", "recovering", "stopping", "failed")
    STOPPED, STARTING, SERVING, RECOVERING, STOPPING, FAILED = range(6)


# Header: words of the first page, then texts.
FORMAT_WORD, SIZE, STATE, PID, RESTARTS, STARTED_NS, SERVING_NS, MINOR, FEATURES = range(9)
KNOWN, LOOKUPS, OPEN_HANDLES, INODE_ROWS, HANDLE_ROWS, NEXT_HANDLE, CONSTANTS_CRC = range(9, 16)
ERROR_LENGTH = 16
ERROR_TEXT = 17  # up to ERROR_BYTES bytes
ERROR_BYTES = 1024
LAST_BACKING = 511  # number of the file that was registered with the connection last
HEADER_WORDS = 512

# Request slots: one for each thread that serves, more for requests of dead workers.
SLOT_WORDS, SLOTS = 16, 128
UNIQUE, OPERATION, SINCE_NS, SUBJECT = range(4)  # OPERATION: index | attempts << 8
COUNTING, COUNTED_NODE, COUNTED_AFTER = range(4, 7)  # valid when COUNTING equals UNIQUE
OPENED, OPENED_HANDLE = range(7, 9)  # valid when OPENED equals UNIQUE
INTENT, BEFORE, BEFORE_TARGET = range(9, 12)  # valid when INTENT equals UNIQUE
COUNTED = 12  # equals UNIQUE once the count is made
FORGOTTEN_SHIFT = 40  # forget: BEFORE is its place in the list << 40 | the count it leaves
SLOTS_AT = HEADER_WORDS
OWN_UNIQUE = 1 << 62  # UNIQUE of requests that do not come from the kernel

# Operation counters: errors, longest (ns), then how many took 2^(i-1) to 2^i ns.
BUCKETS = 64
ERRORS, LONGEST, HISTOGRAM = range(3)
COUNTER_WORDS = HISTOGRAM + BUCKETS
COUNTERS_AT = SLOTS_AT + SLOTS * SLOT_WORDS
COUNTERS_END = COUNTERS_AT + 32 * COUNTER_WORDS

PAGE_WORDS = 512

# Handles: fh + 1, node id, flags | kind << 32 | opens << 33, check.
HANDLE_WORDS, HANDLE_CAPACITY = 4, 1 << 20
HANDLES_AT = -(-COUNTERS_END // PAGE_WORDS) * PAGE_WORDS

# Inodes: see writer.InodeTable.
INODE_WORDS, INODE_CAPACITY = 16, 1 << 24
NODE, COUNT, LINKS, PARENT, META, CRC, BLOB = range(7)
BLOB_BYTES = (INODE_WORDS - BLOB) * 8
CONTINUED = (1 << 64) - 1  # the NODE word of a row that holds the rest of a long key or name
CONTINUED_NEXT, CONTINUED_BLOB = 1, 2  # the next such row + 1, or zero; then the bytes
CONTINUED_BYTES = (INODE_WORDS - CONTINUED_BLOB) * 8
UNLINKED, GENERATION_SHIFT = 1 << 32, 33  # in LINKS, above the count's 32 bits
INODES_AT = HANDLES_AT + HANDLE_CAPACITY * HANDLE_WORDS

TOTAL_WORDS = INODES_AT + INODE_CAPACITY * INODE_WORDS
MAX_COUNT = (1 << 40) - 1


def pack_count(count: int) -> int:
    """A lookup count with bits that tell whether the word is whole."""
    return count << 24 | (count ^ count >> 24 ^ 0xA5A5A5) & 0xFFFFFF


def whole_count(word: int) -> bool:
    """Whether `word` came from `pack_count`."""
    return pack_count(word >> 24) == word


def handle_check(fh_word: int, node: int, flags: int) -> int:
    """The last word of a handle's row; flipped bits in any word change it."""
    return fh_word ^ node ^ flags ^ 0xA5A5A5A5


def inode_crc(node: int, parent: int, meta: int, blob: bytes) -> int:
    """The CRC word of an inode's row; a flipped bit in any of them changes it."""
    mixed = node ^ parent ^ meta
    return crc32(blob, (mixed ^ mixed >> 32) & 0xFFFFFFFF)


def constants_crc(words: "list[int]") -> int:
    """The check of the header's words that never change while a mount lives."""
    return crc32(repr(words).encode())
