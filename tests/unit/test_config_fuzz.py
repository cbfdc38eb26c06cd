"""Whatever a file holds, the answer is a configuration or a ConfigError."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fused import config
from fused.errors import ConfigError

# making the first text takes a second, and so may any run on a busy machine
_RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _survives(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        config.load(str(path))
    except ConfigError as error:
        assert all(line.startswith(f"{path}:") for line in error.problems)
        assert all(line.isprintable() for line in error.problems), error.problems


@_RELAXED
@given(content=st.binary(max_size=200))
@example(content=b"\xef\xbb\xbfmounts: {}")
def test_any_bytes_give_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    _survives(tmp_path_factory.getbasetemp() / "bytes.yaml", content)


_TEXT = """mounts defaults include type mountpoint size files source cache mount_options static
memory passthrough /content /from /symlink /mode /mnt/a 1GiB 10s 0644 ~ true [] {} !!binary !!int
!!float !!bool !!null !!set !!omap &a *a << - : , ? | > [ ] { } " ' \\0 . .. a b 1:30 .nan
!!timestamp !x % @ ` 0x 1e9 2024-01-01 = no"""
_WORDS = st.sampled_from([*_TEXT.split(), "\n", "\n  ", "\n    ", " ", ": ", "\t"])


@_RELAXED
@given(words=st.lists(_WORDS, max_size=40))
@example(words=["!!int", " ", '""'])
@example(words=["include", ": ", '"\\0*"'])
def test_any_words_give_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    text = "".join(words).replace("include", "includ")  # else it reads files around it
    _survives(tmp_path_factory.getbasetemp() / "words.yaml", text.encode())


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=9),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
_MOUNT_KEYS = st.sampled_from(
    [*config.schema()["definitions"]["mount"]["properties"], "files", "source", "size", "/mode"]
)


@_RELAXED
@given(
    mount=st.dictionaries(_MOUNT_KEYS, _VALUES, max_size=6),
    kind=st.sampled_from(["static", "memory", "passthrough"]),
    defaults=st.dictionaries(_MOUNT_KEYS, _VALUES, max_size=3),
)
def test_any_values_give_a_config_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory,
    mount: dict[str, object],
    kind: str,
    defaults: dict[str, object],
) -> None:
    data = {"mounts": {"a": {"mountpoint": "/mnt/a", **mount, "type": kind}}, "defaults": defaults}
    text = yaml.safe_dump(data, allow_unicode=True)
    _survives(tmp_path_factory.getbasetemp() / "values.yaml", text.encode("utf-8", "replace"))
