"""Which tests of faults run by default: the quick ones. All of them run when markers are asked for."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means."""
    config.addinivalue_line("markers", "quick: a test of a fault that is part of the default run")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests of this directory to `-m "quick or not quick"`, and to who names one."""
    if config.option.markexpr or config.option.keyword or any("::" in argument for argument in config.args):
        return
    here = config.rootpath / "tests" / "faults"
    long = [item for item in items if item.path.is_relative_to(here) and item.get_closest_marker("quick") is None]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
