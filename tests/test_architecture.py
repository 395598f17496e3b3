"""Who may import whom. The rooms and the reasons are in the docstring of `amigrate`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from amigrate.engine.closure import MEMBERS
from amigrate.kinds import REGISTRY
from amigrate.kinds.base import Kind

ROOT = Path(__file__).parents[1] / "amigrate"

MAY_IMPORT = {
    "__init__": set[str](),
    "__main__": {"cli"},
    "cli": {"commands", "session", "jobs", "options", "report", "core", "kinds", "archive", "local"},
    "jobs": {"core", "engine", "archive"},
    "stores": {"core"},
    "options": {"core", "stores"},
    "selecting": {"core", "options", "archive", "engine", "kinds", "server"},
    "local": {"core"},
    "session": {"core", "client", "options", "selecting", "workspaces", "jobs", "kinds", "server", "archive", "engine"}
    | {"report"},
    "serving": {"core", "local", "stores"},
    "sample": {"core", "client"},
    "workspaces": {"core", "client", "options"},
    "core": set[str](),
    "client": {"core", "options"},
    "artifacts": {"core", "client"},
    "kinds": {"core", "client", "artifacts"},
    "server": {"core", "client", "kinds"},
    "archive": {"core"},
    "engine": {"core"},
    "report": {"core", "engine"},
}
"""For each room, the rooms it may import. Not listed is where everything meets."""

EVERYTHING_MEETS = {"commands", "ends"}


def imports_of(path: Path) -> Iterator[str]:
    """The modules of ours that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.split(".")[0] == "amigrate")


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def files() -> list[Path]:
    found = sorted(ROOT.rglob("*.py"))
    assert len(found) > 30
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path: Path) -> None:
    room = room_of(path)
    if room in EVERYTHING_MEETS:
        return
    known = {one.stem for one in ROOT.iterdir()}
    rooms = {name.split(".")[1] for name in imports_of(path) if len(name.split(".")) > 1}
    assert rooms & known <= MAY_IMPORT[room] | {room}


@pytest.mark.parametrize("kind", sorted(REGISTRY))
def test_a_kind_never_imports_another_kind(kind: str) -> None:
    imported = {name.split(".")[2] for name in imports_of(ROOT / "kinds" / f"{kind}.py") if name.count(".") >= 2}
    assert not imported & (set(REGISTRY) - {kind})


def test_every_kind_is_named_and_ordered() -> None:
    for name, kind in REGISTRY.items():
        assert kind.name == name
        assert kind.label
        assert set(kind.needs) <= set(REGISTRY)
        assert kind.parent is None or kind.parent in REGISTRY


@pytest.mark.parametrize("kind", sorted(REGISTRY))
def test_every_kind_has_a_sample(kind: str) -> None:
    """What is carried is tested: see `tests/contract/test_kinds.py`."""
    path = Path(__file__).parent / "kinds" / f"{kind}.py"
    assert path.is_file(), f"the kind '{kind}' has no sample: write {path.name} beside the others in tests/kinds"
    made = {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
    assert {"seed", "mutate"} <= made


def has(kind: Kind, hook: str) -> bool:
    """Whether a kind brings a hook of its own."""
    return getattr(type(kind), hook) is not getattr(Kind, hook)


CALLED: Mapping[str, Callable[[Kind], bool]] = {
    "scan": lambda kind: kind.listed,
    "locate": lambda kind: kind.name in MEMBERS,
    "joined": lambda kind: has(kind, "part"),
    "open": lambda kind: has(kind, "files"),
    "begin": lambda kind: kind.listed and not kind.batched,
    "begin_batch": lambda kind: kind.batched,
    "put_file": lambda kind: has(kind, "files"),
}
"""The hooks that have no default, and of which kinds they are asked."""


@pytest.mark.parametrize("kind", sorted(REGISTRY))
def test_a_kind_has_every_hook_that_it_announces(kind: str) -> None:
    assert [hook for hook, called in CALLED.items() if called(REGISTRY[kind]) and not has(REGISTRY[kind], hook)] == []


def test_every_hook_without_a_default_is_looked_for() -> None:
    base = ast.parse((ROOT / "kinds" / "base.py").read_text("utf-8"))
    raised = {
        node.args[0].value
        for node in ast.walk(base)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "_without"
        and isinstance(node.args[0], ast.Constant)
    }
    assert raised == set(CALLED)


def test_only_the_codec_speaks_json() -> None:
    """orjson writes NaN as null and json writes it bare: one module knows when to use which."""
    speakers = {
        str(path.relative_to(ROOT))
        for path in files()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import) and {alias.name for alias in node.names} & {"json", "orjson"}
    }
    assert speakers == {"core/codec.py"}
