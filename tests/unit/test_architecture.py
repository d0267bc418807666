"""Dependencies point one way: each package imports, of the project and of others, only what it may know."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.aggregator import AggregatorActor
from actors.cache import CacheActor
from actors.exchange import ExchangeActor
from actors.mode_supervisor import ModeSupervisorActor
from actors.price_worker import PriceWorkerActor
from actors.router import RouterActor
from actors.runtime import GeventActor

ROOT = Path(__file__).parents[2]
OURS = {"actors", "marketflow", "testgen"}

PORTS = {"marketflow.domain", "marketflow.ports", "marketflow.errors"}

MAY_KNOW = {
    "actors/runtime": {"actors.runtime"},
    "actors": {"actors", *PORTS},
    "marketflow/domain": {"marketflow.domain"},
    "marketflow/ports.py": {"marketflow.domain"},
    "marketflow/errors.py": set[str](),
    "marketflow/adapters": {"marketflow.adapters", "marketflow.service", *PORTS},
    "marketflow/api": {"marketflow.__version__", "marketflow.api", *PORTS},
    "marketflow/config": {"marketflow.config", *PORTS},
    "testgen": {"testgen"},
}
"""What of the project. The composition root and the server, which wire all of it, may know everything."""

MAY_USE = {
    "actors/runtime": {"gevent", "pykka"},
    "actors": {"gevent", "msgspec", "pykka", "structlog"},
    "marketflow/domain": {"msgspec"},
    "marketflow/ports.py": set[str](),
    "marketflow/errors.py": set[str](),
    "testgen": {"click", "gevent", "msgspec"},
}
"""What of others, beside the standard library, where that is part of the design."""


def imports(path: Path) -> Iterator[str]:
    """Name what the files of a package import, also inside of functions, as `package.module.name`."""
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    assert files, f"{path} is not there"
    for file in files:
        for node in ast.walk(ast.parse(file.read_bytes(), str(file))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file} has a relative import"
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, packages: set[str]) -> bool:
    """Tell whether a name is one of the packages or in it."""
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


def top(name: str) -> str:
    """Return the name of the outermost package."""
    return name.partition(".")[0]


@pytest.mark.parametrize("package", MAY_KNOW)
def test_a_package_knows_only_what_is_below_it(package: str) -> None:
    found = {name for name in imports(ROOT / package) if top(name) in OURS}
    assert {name for name in found if not is_within(name, MAY_KNOW[package])} == set()


@pytest.mark.parametrize("package", MAY_USE)
def test_a_package_uses_only_what_its_part_needs(package: str) -> None:
    found = {top(name) for name in imports(ROOT / package)} - OURS - sys.stdlib_module_names
    assert found - MAY_USE[package] == set()


@pytest.mark.parametrize(
    "actor", [ExchangeActor, RouterActor, PriceWorkerActor, CacheActor, AggregatorActor, ModeSupervisorActor]
)
def test_no_actor_takes_the_place_of_what_the_runtime_keeps_for_itself(actor: type[GeventActor]) -> None:
    private = {name for name in dir(GeventActor) if name.startswith("_") and not name.startswith("__")} - {"_abc_impl"}
    assert private & set(vars(actor)) == set()
