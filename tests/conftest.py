"""How all tests are run: what may run side by side, and how to run a failed one again."""

import os
import shlex

import pytest
from hypothesis import settings

# For tests that each mutant runs again: pytest --hypothesis-profile=mutants
settings.register_profile("mutants", max_examples=25)

_ONE_AT_A_TIME = ("tests/e2e/", "tests/faults/", "tests/integration/test_foes_")
"""Their tests keep a whole system under load, and measure how it does: never two of them at once."""


def pytest_configure(config: pytest.Config) -> None:
    """Know the marker also where xdist is switched off, and then does not."""
    config.addinivalue_line("markers", "xdist_group(name): tests that one process runs, one after another")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module in one process, as they share its servers; and those of whole systems in one."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item.nodeid)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the command that runs what failed again."""
    reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
    # xdist appends its group to a test's name.
    failed = sorted({report.nodeid.removesuffix(f"@{_group(report.nodeid)}") for report in reports})
    if failed:
        command = os.environ.get("TEST_AGAIN", "python -m pytest")
        terminalreporter.section("to run again what failed")
        terminalreporter.line(f"{command} {shlex.join(failed)}")


def _group(nodeid: str) -> str:
    path = nodeid.partition("::")[0]
    return "systems" if path.startswith(_ONE_AT_A_TIME) else path
