"""What a file with wrong keys or values is told, word for word."""

from pathlib import Path

import pytest

from fused import config

MEMORY = "mounts:\n  a:\n    type: memory\n    mountpoint: /mnt/a\n"
STATIC = "mounts:\n  a:\n    type: static\n    mountpoint: /mnt/a\n    files:\n"
SIZE = "expected a size such as 512MiB (KiB, MiB, GiB, TiB; a plain number is bytes), not "
TIME = (
    "expected a time such as 10s or 1min 30s (ms, s, min, h; a plain number is seconds; "
    "at most a year), not "
)
COMMON = (
    "allow_other, autostart, log_level, mount_options, on_crash, read_only, stop_timeout, "
    "threads, type, watchdog"
)
NAME = (
    "not a name for a mount: small letters, digits, '_' and '-', a letter first, at most 64, "
    "as it names the unit fused@NAME.service"
)
CONTENT = "expected the content as text or !!binary, or a mapping for a directory, not "
FILE_NAME = "not a file name: it must not be empty, '.' or '..', and hold neither '/' nor NUL"

KEYS = {
    "a list": ("[1]", ["1:1: file: expected a mapping, not a list"]),
    "text": ("hello", ["1:1: file: expected a mapping, not 'hello'"]),
    "unknown at the top": ("mount: {}", ["1:1: mount: no such key, did you mean 'mounts'?"]),
    "mounts as a list": ("mounts: []", ["1:9: mounts: expected a mapping, not a list"]),
    "mount without anything": (
        "mounts: {a: }",
        ["1:13: mounts.a: expected a mapping with 'type' and 'mountpoint', not null"],
    ),
    "bad names": (
        "mounts: {Data: {}, 1a: {}, a.b: {}, ä: {}}",
        [
            f"1:10: mounts.Data: {NAME}",
            f"1:20: mounts.1a: {NAME}",
            f"1:28: mounts.'a.b': {NAME}",
            f"1:37: mounts.ä: {NAME}",
        ],
    ),
    "contract's example": (
        MEMORY + "    sise: 1GiB\n",
        ["5:5: mounts.a.sise: no such key, did you mean 'size'?"],
    ),
    "nothing near": (
        MEMORY + "    zzz: 1\n",
        [
            "5:5: mounts.a.zzz: no such key; there are: allow_other, autostart, inodes, "
            "log_level, mount_options, mountpoint, on_crash, persist, read_only, size, "
            "stop_timeout, threads, type, watchdog"
        ],
    ),
    "missing": (
        "mounts:\n  a: {type: passthrough}\n",
        [
            "2:3: mounts.a.mountpoint: is missing: the directory to mount upon; created when "
            "missing",
            "2:3: mounts.a.source: is missing: the directory to show",
        ],
    ),
    "mistyped type": (
        "mounts:\n  a: {typ: memory, mountpoint: /mnt/a}\n",
        [
            "2:3: mounts.a.type: is missing: static, memory, passthrough, the name of an "
            "installed type (fusedctl types), or package.module:Class, a subclass of "
            "llfuse.Operations",
            "2:7: mounts.a.typ: no such key, did you mean 'type'?",
        ],
    ),
    "unknown type": (
        "mounts:\n  a: {type: memori, mountpoint: /mnt/a}\n",
        ["2:13: mounts.a.type: no file system type 'memori', did you mean 'memory'?"],
    ),
    "unknown type nothing near": (
        "defaults: {type: zzz}\nmounts: {a: {mountpoint: /mnt/a}}\n",
        [
            "1:18: defaults.type: no file system type 'zzz'; there are: memory, passthrough, "
            "static, package.module:Class (for 'a')"
        ],
    ),
    "malformed class": (
        "mounts:\n  a: {type: 'a b:c', mountpoint: /mnt/a}\n",
        ["2:13: mounts.a.type: 'a b:c' is not of the form 'package.module:Class'"],
    ),
    "wrong values": (
        MEMORY
        + "    autostart: maybe\n    threads: 0\n    log_level: warn\n    on_crash: 1\n"
        + "    inodes: many\n    mount_options: noexec\n    read_only: null\n",
        [
            "5:16: mounts.a.autostart: expected true or false, not 'maybe'",
            "6:14: mounts.a.threads: expected a number greater than or equal to 1, not 0",
            "7:16: mounts.a.log_level: expected 'debug', 'info', 'warning' or 'error', "
            "not 'warn', did you mean 'warning'?",
            "8:15: mounts.a.on_crash: expected 'resume' or 'remount', not 1",
            "9:13: mounts.a.inodes: expected a whole number, not 'many'",
            "10:20: mounts.a.mount_options: expected a list, not 'noexec'",
            "11:16: mounts.a.read_only: expected true or false, not null",
        ],
    ),
    "sizes": (
        "defaults: {type: memory}\nmounts:\n"
        + "".join(
            f"  {name}: {{mountpoint: /mnt/{name}, size: {size}}}\n"
            for name, size in (
                *(("a", "1GB"), ("b", "-1"), ("c", "1.5"), ("d", "true")),
                *(("e", "9999999TiB"), ("f", "0"), ("g", "much")),
            )
        ),
        [
            f"3:33: mounts.a.size: {SIZE}'1GB', did you mean '1GiB'?",
            f"4:33: mounts.b.size: {SIZE}-1",
            f"5:33: mounts.c.size: {SIZE}1.5",
            f"6:33: mounts.d.size: {SIZE}true",
            f"7:33: mounts.e.size: {SIZE}'9999999TiB'",
            "8:33: mounts.f.size: expected a number greater than 0, not 0",
            f"9:33: mounts.g.size: {SIZE}'much'",
        ],
    ),
    "times": (
        "defaults:\n  stop_timeout: 5m\n  watchdog: .inf\nmounts:\n",
        [
            f"2:17: defaults.stop_timeout: {TIME}'5m', did you mean '5min'?",
            f"3:13: defaults.watchdog: {TIME}Infinity",
        ],
    ),
    "defaults": (
        "defaults: {mountpoint: /mnt, size: 1GiB, threads: 1000}\n" + MEMORY,
        [
            "1:12: defaults.mountpoint: each mount has its own, there is no default",
            f"1:30: defaults.size: no such key; there are: {COMMON}",
            "1:51: defaults.threads: expected a number less than or equal to 256, not 1000",
        ],
    ),
    "mount options": (
        MEMORY + "    mount_options: [noexec, nosiud]\n",
        [
            "5:29: mounts.a.mount_options[1]: expected 'ro', 'rw', 'nosuid', 'nodev', 'noexec', "
            "'sync', 'dirsync', 'noatime', 'nodiratime', 'relatime', 'strictatime' or "
            "'nosymfollow', not 'nosiud', did you mean 'nosuid'?"
        ],
    ),
    "contrary mount options": (
        "defaults: {type: memory}\nmounts:\n"
        "  a: {mountpoint: /mnt/a, mount_options: [ro, rw]}\n"
        "  b: {mountpoint: /mnt/b, mount_options: [rw], read_only: true}\n",
        [
            "3:42: mounts.a.mount_options: 'ro' and 'rw' contradict each other",
            "4:42: mounts.b.mount_options: 'rw' contradicts 'read_only: true'",
        ],
    ),
    "paths": (
        "defaults: {type: memory}\nmounts:\n"
        "  a: {mountpoint: mnt/a}\n  b: {mountpoint: /mnt/../b}\n  c: {mountpoint: /}\n"
        '  d: {mountpoint: "/mnt/\\0"}\n  e: {mountpoint: 5}\n',
        [
            "3:19: mounts.a.mountpoint: expected an absolute path, one that starts with '/', "
            "not 'mnt/a'",
            "4:19: mounts.b.mountpoint: expected a path without '..', not '/mnt/../b'",
            "5:19: mounts.c.mountpoint: cannot mount upon '/'",
            "6:19: mounts.d.mountpoint: expected a path of at most 4095 bytes, none of them NUL",
            "7:19: mounts.e.mountpoint: expected text, not 5",
        ],
    ),
    "overlapping mountpoints": (
        "defaults: {type: memory}\nmounts:\n"
        "  a: {mountpoint: /mnt/a/b}\n  b: {mountpoint: /mnt//a/}\n"
        "  c: {mountpoint: /mnt/a}\n  d: {mountpoint: /mnt/a-b}\n",
        [
            "3:19: mounts.a.mountpoint: '/mnt/a/b' is below the mountpoint of 'b'",
            "5:19: mounts.c.mountpoint: '/mnt/a' is the mountpoint of 'b'",
        ],
    ),
    "source and mountpoint": (
        "defaults: {type: passthrough}\nmounts:\n"
        "  a: {mountpoint: /a, source: /a/b/}\n  b: {mountpoint: /b, source: /b}\n"
        "  c: {mountpoint: /c/d, source: /c}\n  d: {mountpoint: /d, source: /}\n"
        "  e: {mountpoint: /e, source: /ee}\n",
        [
            "3:31: mounts.a.source: '/a/b' is inside the mount's own mountpoint '/a'",
            "4:31: mounts.b.source: '/b' is inside the mount's own mountpoint '/b'",
            "5:19: mounts.c.mountpoint: '/c/d' is inside the mount's own source '/c'",
            "6:19: mounts.d.mountpoint: '/d' is inside the mount's own source '/'",
        ],
    ),
    "persist": (
        "defaults: {type: memory}\nmounts:\n"
        "  a: {mountpoint: /a, persist: /var/a}\n  b: {mountpoint: /b, persist: /var//a/}\n"
        "  c: {mountpoint: /c, persist: /c}\n  d: {mountpoint: /d, persist: /a/d}\n"
        "  e: {mountpoint: /e, persist: var/e}\n  f: {mountpoint: /f, persist: /var/a/f}\n",
        [
            "4:32: mounts.b.persist: '/var/a' is 'persist' of 'a' already; each mount has its own",
            "5:32: mounts.c.persist: '/c' is inside the mountpoint of 'c'",
            "6:32: mounts.d.persist: '/a/d' is inside the mountpoint of 'a'",
            "7:32: mounts.e.persist: expected an absolute path, one that starts with '/', "
            "not 'var/e'",
        ],
    ),
    "static tree": (
        STATIC + "      n: 1\n      l: [x]\n      d/e: x\n      .: x\n"
        "      a: {/contnet: x}\n      b: {/content: x, /from: y, z: 1}\n"
        "      c: {/symlink: x, /mode: 0644}\n      m: {/mode: 644}\n      s: {/symlink: ''}\n"
        f"      {'ä' * 128}: x\n",
        [
            f"6:10: mounts.a.files.n: {CONTENT}1; quote it",
            f"7:10: mounts.a.files.l: {CONTENT}a list",
            f"8:7: mounts.a.files.'d/e': {FILE_NAME}",
            f"9:7: mounts.a.files.'.': {FILE_NAME}",
            "10:11: mounts.a.files.a./contnet: no such attribute, did you mean '/content'?",
            "11:24: mounts.a.files.b./from: cannot stand beside '/content'",
            "11:34: mounts.a.files.b.z: cannot stand beside '/content'",
            "12:24: mounts.a.files.c./mode: cannot stand beside '/symlink'",
            "13:18: mounts.a.files.m./mode: expected permissions in octal, such as 0644, not 644",
            "14:21: mounts.a.files.s./symlink: expected a path, not ''",
            f"15:7: mounts.a.files.{'ä' * 128}: not a file name: longer than 255 bytes",
        ],
    ),
    "static without a tree": (
        STATIC.replace("files:", "files: x"),
        ["5:12: mounts.a.files: expected a mapping of names to contents, not 'x'"],
    ),
}


@pytest.mark.parametrize(("text", "problems"), KEYS.values(), ids=KEYS)
def test_wrong_keys_is_told_with_its_place(
    tmp_path: Path, text: str | bytes, problems: list[str]
) -> None:
    file = tmp_path / "fused.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert config.check(str(file)) == [f"{file}:{problem}" for problem in problems]


def test_flood_of_problems_is_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "fused.yaml"
    for line in ("      f{}: {}\n", "      f: {}{}\n"):
        file.write_text(STATIC + "".join(line.format(i, i) for i in range(20_000)))
        problems = config.check(str(file))
        assert len(problems) == 101
        assert problems[-1] == f"{file}:1:1: file: there are more problems than these"
