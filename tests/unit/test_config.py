"""What a right configuration comes to."""

import json
import os
import time
from pathlib import Path

import pytest

from fused import config, spec
from fused.spec import MountSpec

ROOT = Path(__file__).parents[2]


def written(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)


def test_one_mount_of_each_type_of_ours(tmp_path: Path) -> None:
    loaded = config.load(
        written(
            tmp_path / "fused.yaml",
            """\
mounts:
  mirror: {type: passthrough, mountpoint: /mnt//mirror/, source: /srv/./data/, cache: exclusive}
  scratch: {type: memory, mountpoint: /mnt/scratch, size: 1.5GiB, inodes: 1000}
  plain: {type: memory, mountpoint: /mnt/plain, persist: /srv//plain/}
  hello: {type: static, mountpoint: /mnt/hello, files: {message: "hello world\\n"}}
""",
        )
    )
    assert loaded.mounts == {
        "mirror": MountSpec(
            *("mirror", "passthrough", "/mnt/mirror"),
            options={"source": "/srv/data", "cache": "exclusive"},
        ),
        "scratch": MountSpec(
            *("scratch", "memory", "/mnt/scratch"),
            options={"size": 3 << 29, "inodes": 1000, "persist": None},
        ),
        "plain": MountSpec(
            *("plain", "memory", "/mnt/plain"),
            options={"size": None, "inodes": None, "persist": "/srv/plain"},
        ),
        "hello": MountSpec(
            *("hello", "static", "/mnt/hello"),
            options={
                "files": [
                    ["", "directory", 0o555, ""],
                    ["message", "text", 0o444, "hello world\n"],
                ]
            },
        ),
    }


def test_common_keys_and_defaults(tmp_path: Path) -> None:
    loaded = config.load(
        written(
            tmp_path / "fused.yaml",
            """\
defaults:
  type: memory
  stop_timeout: 1min 30s
  watchdog: 500ms
  mount_options: [nosuid, nodev]
mounts:
  a: {mountpoint: /mnt/a}
  b:
    mountpoint: /mnt/b
    autostart: false
    allow_other: false
    mount_options: [ro, noexec, noexec]
    threads: 8
    log_level: debug
    stop_timeout: 5
    watchdog: 0
    on_crash: remount
""",
        )
    )
    options = {"size": None, "inodes": None, "persist": None}
    assert loaded.mounts["a"] == MountSpec(
        *("a", "memory", "/mnt/a"),
        stop_timeout=90.0,
        watchdog=0.5,
        mount_options=("nosuid", "nodev"),
        options=options,
    )
    assert loaded.mounts["b"] == MountSpec(
        *("b", "memory", "/mnt/b", False, True, False, ("noexec",), 8),
        *("debug", 5.0, 0.0, "remount", options),
    )


def test_static_tree_becomes_a_flat_list_parents_first(tmp_path: Path) -> None:
    path = written(
        tmp_path / "fused.yaml",
        """\
mounts:
  a:
    type: static
    mountpoint: /mnt/a
    files:
      /mode: 0755
      etc:
        motd: ""
        empty: {}
      run: {/content: "#!/bin/sh\\n", /mode: 0o555}
      link: {/symlink: ../x}
      beside: {/from: sub/../beside.txt, /mode: "0400"}
      far: {/from: /etc/motd}
      raw: !!binary /w==
      raw2: {/content: !!binary AA==}
      private: {/mode: 0700, key: &text "k"}
      again: *text
      ? !!binary /3g=
      : not UTF-8
      2024-01-01: the day
""",
    )
    assert config.load(path).mounts["a"].options["files"] == [
        ["", "directory", 0o755, ""],
        ["etc", "directory", 0o555, ""],
        ["etc/motd", "text", 0o444, ""],
        ["etc/empty", "directory", 0o555, ""],
        ["run", "text", 0o555, "#!/bin/sh\n"],
        ["link", "symlink", 0o777, "../x"],
        ["beside", "from", 0o400, str(tmp_path / "beside.txt")],
        ["far", "from", 0o444, "/etc/motd"],
        ["raw", "base64", 0o444, "/w=="],
        ["raw2", "base64", 0o444, "AA=="],
        ["private", "directory", 0o700, ""],
        ["private/key", "text", 0o444, "k"],
        ["again", "text", 0o444, "k"],
        ["\udcffx", "text", 0o444, "not UTF-8"],
        ["2024-01-01", "text", 0o444, "the day"],
    ]


def test_nothing_to_mount_is_no_error(tmp_path: Path) -> None:
    for text in ("mounts: {}", "mounts:", "{}", "\ufeffmounts: {}\r\n", "defaults:\nmounts:\n"):
        assert config.load(written(tmp_path / "fused.yaml", text)).mounts == {}


def test_included_files_are_found_beside_the_main_file(tmp_path: Path) -> None:
    mount = "mounts: {{{0}: {{type: memory, mountpoint: /mnt/{0}}}}}"
    main = written(
        tmp_path / "fused.yaml",
        f"include: [fused.d/*.yaml, '*.yaml', {tmp_path}/one.conf, none.d/*]\n"
        "defaults: {threads: 3}\n" + mount.format("main"),
    )
    written(tmp_path / "fused.d" / "b.yaml", mount.format("b"))
    written(tmp_path / "fused.d" / "a.yaml", mount.format("a"))
    written(tmp_path / "fused.d" / "no.txt", "}")
    written(tmp_path / "one.conf", mount.format("one"))
    loaded = config.load(main)
    assert list(loaded.mounts) == ["main", "a", "b", "one"]
    assert {mount.threads for mount in loaded.mounts.values()} == {3}


def test_wrong_included_files_are_told_with_their_own_names(tmp_path: Path) -> None:
    main = written(
        tmp_path / "fused.yaml",
        "include: [fused.d/*, missing.yaml, '']\n"
        "mounts: {a: {type: memory, mountpoint: /mnt/a}, zz: {}}",
    )
    again = written(
        tmp_path / "fused.d" / "again.yaml",
        "defaults: {}\nmounts:\n  a: {type: memory, mountpoint: /mnt/b}\n",
    )
    below = written(
        tmp_path / "fused.d" / "below.yaml", "mounts: {c: {type: memory, mountpoint: /mnt/a/c}}"
    )
    falsy = written(tmp_path / "fused.d" / "falsy.yaml", "[]")
    assert config.check(main) == [
        f"{main}:1:36: include[2]: expected a path or a pattern such as fused.d/*.yaml, not ''",
        f"{main}:2:49: mounts.zz.type: is missing: static, memory, passthrough, the name of an "
        "installed type (fusedctl types), or package.module:Class, a subclass of "
        "llfuse.Operations",
        f"{main}:2:49: mounts.zz.mountpoint: is missing: the directory to mount upon; created "
        "when missing",
    ]
    Path(main).write_text(Path(main).read_text().replace(", ''", "").replace(", zz: {}", ""))
    assert config.check(main) == [
        f"{main}:1:22: include[1]: '{tmp_path}/missing.yaml' does not exist",
        f"{again}:1:1: defaults: no such key; there are: mounts",
        f"{again}:3:3: mounts.a: repeated, it stands already in {main}:2",
        f"{below}:1:40: mounts.c.mountpoint: '/mnt/a/c' is below the mountpoint of 'a'",
        f"{falsy}:1:1: file: expected a mapping, not a list",
    ]


def test_stamp_changes_with_every_file_and_with_a_new_one(tmp_path: Path) -> None:
    text = "include: fused.d/*.yaml"
    main = written(tmp_path / "fused.yaml", text)
    one = written(tmp_path / "fused.d" / "one.yaml", "mounts: {}")

    def changed(stamped: spec.Stamp) -> bool:
        return spec.stamp([entry[0] for entry in stamped]) != stamped

    stamped = config.load(main).stamp
    assert [entry[0] for entry in stamped] == [main, os.path.dirname(one), one]
    assert not changed(stamped)
    for path in (one, main, str(tmp_path / "fused.d" / "two.yaml")):
        stamped = config.load(main).stamp
        Path(path).write_text("mounts:  {}" if path != main else text + " # changed")
        assert changed(stamped)


def test_specs_survive_their_json_unchanged(tmp_path: Path) -> None:
    for path in (ROOT / "config" / "examples").iterdir():
        for mount in config.load(str(path)).mounts.values():
            spec.save(str(tmp_path), mount, [])
            assert spec.load(str(tmp_path)) == (mount, [])


@pytest.mark.parametrize(
    "path", [ROOT / "config" / "fused.yaml", *(ROOT / "config" / "examples").iterdir()], ids=str
)
def test_shipped_files_are_valid(path: Path) -> None:
    assert config.check(str(path)) == []


def test_installed_default_is_valid_with_its_mounts_uncommented(tmp_path: Path) -> None:
    lines = (ROOT / "config" / "fused.yaml").read_text().splitlines(keepends=True)
    text = "".join(line.removeprefix("#") if line.startswith("#  ") else line for line in lines)
    mounts, other = text.split("  other:")
    path = written(tmp_path / "fused.yaml", mounts)
    loaded = config.load(path)
    assert list(loaded.mounts) == ["mirror", "scratch", "hello"]
    written(tmp_path / "plain.yaml", "mounts: {a: {type: memory, mountpoint: /mnt/a}}")
    default = config.load(str(tmp_path / "plain.yaml")).mounts["a"]
    assert loaded.mounts["scratch"][3:-1] == default[3:-1]  # it shows the values that hold anyway
    assert "package.module:Class" in other


def test_demo_is_valid_where_it_runs(tmp_path: Path) -> None:
    text = (ROOT / "config" / "demo.yaml").read_text()
    path = written(tmp_path / "demo.yaml", text.replace(" ./", f" {tmp_path}/"))
    mountpoints = {name: mount.mountpoint for name, mount in config.load(path).mounts.items()}
    assert mountpoints == {
        name: f"{tmp_path}/run/mnt/{name}" for name in ("hello", "scratch", "mirror")
    }


def test_shipped_schema_is_the_one_of_the_models() -> None:
    shipped = json.loads((ROOT / "config" / "fused.schema.json").read_text())
    assert shipped == config.schema()


def test_types_of_ours_are_described() -> None:
    found = {info.name: info for info in config.types() if info.origin == "built-in"}
    assert list(found) == ["static", "memory", "passthrough"]
    assert [option[:4] for option in found["memory"].options] == [
        ("size", "size", False, None),
        ("inodes", "number", False, None),
        ("persist", "path", False, None),
    ]
    assert [option[:4] for option in found["passthrough"].options] == [
        ("source", "path", True, None),
        ("cache", "shared | exclusive", False, "shared"),
    ]
    assert all(info.description for info in found.values())
    assert all(option.description for info in found.values() for option in info.options)


def test_a_hundred_thousand_files_load_in_two_seconds(tmp_path: Path) -> None:
    files = "".join(f'      f{i}: "content {i}\\n"\n' for i in range(100_000))
    path = written(
        tmp_path / "fused.yaml",
        "mounts:\n  a:\n    type: static\n    mountpoint: /mnt/a\n    files:\n" + files,
    )
    before = time.process_time()
    loaded = config.load(path)
    assert time.process_time() - before < 2
    assert len(loaded.mounts["a"].options["files"]) == 100_001
