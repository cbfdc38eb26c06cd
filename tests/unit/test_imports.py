"""Who may import whom: the architecture, as two tables."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Packages with a price or a meaning, and the only parts of fused that import them.
OUTSIDE = {
    "llfuse": {"worker", "filesystems"},
    "asyncio": {"manager", "control", "cli", "launcher"},
    "asyncvarlink": {"control"},
    "yaml": {"config"},
    "pydantic": {"config", "filesystems", "control"},
    "click": {"cli", "manager"},
    "rich": {"cli"},
    "systemd": {"worker", "manager"},
}
# What each part may import of the others.  A cycle cannot hide here: each names only earlier ones.
INSIDE: dict[str, set[str]] = {
    "errors": set(),
    "spec": set(),
    "notify": set(),
    "mountinfo": {"errors"},
    "holders": {"mountinfo"},
    "ledger": {"errors"},
    "control": {"errors"},
    "cli": {"control", "errors"},
    "filesystems": {"errors", "ledger", "notify"},
    "config": {"errors", "spec", "filesystems"},
    "worker": {
        *("errors", "spec", "notify", "mountinfo", "holders", "ledger"),
        *("filesystems", "config"),
    },
    "launcher": {"errors", "spec", "notify", "mountinfo"},
    "manager": {
        *("errors", "spec", "notify", "mountinfo", "holders", "ledger"),
        *("control", "cli", "filesystems", "config", "launcher"),
    },
    "__main__": {"worker", "manager"},
}
MODULES = sorted((ROOT / "fused").rglob("*.py"))


def part(module: Path) -> str:
    """The part of fused that a file belongs to; "" for the package itself."""
    first = module.relative_to(ROOT / "fused").parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imported(module: Path) -> Iterator[str]:
    """Dotted names that a file imports, at its top or inside a function."""
    package = ["fused", *module.relative_to(ROOT / "fused").parts[:-1]]
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_imports_only_what_its_part_may(module: Path) -> None:
    here = part(module)
    for name in imported(module):
        first, _, rest = name.partition(".")
        if first == "fused":
            other = rest.partition(".")[0]
            known = other in INSIDE and other != here
            assert not known or other in INSIDE[here], f"{here} imports {other}"
        else:
            assert here in OUTSIDE.get(first, {here}), f"{here} imports {first}"


def test_every_part_stands_in_the_table() -> None:
    assert {part(module) for module in MODULES} - {""} <= INSIDE.keys()


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        # A takeover is to take hardly longer than to start Python and import llfuse.
        ("fused.worker", {"asyncio", "pydantic", "yaml", "click", "rich", "asyncvarlink"}),
        ("fused.manager", {"llfuse"}),
        ("fused.cli", {"llfuse", "yaml", "pydantic"}),
    ],
)
def test_import_does_not_drag_in(module: str, unwanted: set[str]) -> None:
    code = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.stderr == ""
    assert done.stdout.split() == []
