"""The documents: links lead somewhere, nothing public is left out, and what they show is there."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from actors.runtime import ActorSystem, SupervisorSpec
from marketflow import cli
from marketflow.adapters.clock import SystemClock
from marketflow.api import ApiSettings, create_app
from marketflow.api.routes import ROUTES
from marketflow.config.__main__ import reference
from marketflow.config.model import Settings
from marketflow.domain.feed import REASONS
from marketflow.metrics import ActorCollector, NodeMeters
from tests.support.market import EXCHANGES, SYMBOLS, example_market

ROOT = Path(__file__).parents[2]
FOUND = chain(
    ROOT.glob("*.md"), *((ROOT / folder).rglob("*.md") for folder in ("docs", "docker", "sources", "marketflow"))
)
DOCUMENTS = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(FOUND)}


def document(name: str) -> str:
    """Return the text of a document below docs/."""
    return DOCUMENTS[f"docs/{name}"]


def code_blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def metrics() -> Iterator[tuple[str, set[str]]]:
    """Yield the name of every metric, as it is scraped, with its labels."""
    registry = CollectorRegistry()
    create_app(example_market(), ApiSettings(symbols=SYMBOLS, exchanges=EXCHANGES, request_log="off"), registry)
    NodeMeters(registry, EXCHANGES, SystemClock())
    system = ActorSystem(SupervisorSpec("root"), lambda _failure: None)
    registry.register(ActorCollector(system.tree, system.dead_letters))
    for family in registry.collect():
        if not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            yield name, set(chain.from_iterable(sample.labels for sample in family.samples)) - {"le"}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name: str) -> None:
    text = re.sub(r"^```.*?^```", "", DOCUMENTS[name], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (ROOT / name).parent / path if path else ROOT / name
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text()), target


def test_the_page_on_configuration_is_what_the_model_says() -> None:
    assert document("configuration.md") == reference(), "run: python -m marketflow.config > docs/configuration.md"


def test_every_key_of_the_configuration_is_there() -> None:
    text = document("configuration.md")
    for section, field in Settings.model_fields.items():
        assert f"### `[{section}]`" in text
        for key in field.annotation.model_fields:  # type: ignore[union-attr]  # every field is a section
            assert f"| `{key}`<br>`MARKETFLOW_{section.upper()}__{key.upper()}` |" in text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_configuration_that_is_shown_is_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name.endswith("testgen.md"):
        return  # its profiles are tested with testgen
    for block in code_blocks(DOCUMENTS[name], "toml"):
        Settings(**tomllib.loads(block))


def test_every_metric_is_described_with_its_labels() -> None:
    described = {
        row[1]: set(row[2].split(",")) if row[2] else set()
        for row in re.finditer(r"^\| `(marketflow_\w+)(?:\{([\w,]+)\})?` \|", document("operating.md"), re.MULTILINE)
    }
    found = dict(metrics())
    assert described.keys() == found.keys()
    for name, labels in found.items():
        assert labels <= described[name]  # a histogram without an observation shows none


def test_alerts_ask_for_metrics_that_are_there_and_are_described() -> None:
    rules = (ROOT / "docs/examples/prometheus-rules.yml").read_text()
    asked = {re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"\bmarketflow_\w+", rules)}
    assert asked <= {name for name, _ in metrics()}
    for alert in re.findall(r"- alert: (\w+)", rules):
        assert f"`{alert}`" in document("operating.md")


def test_every_reason_of_rejection_is_described() -> None:
    assert all(f"`{reason}`" in document("operating.md") for reason in REASONS)


def test_every_route_is_described() -> None:
    for route in ROUTES:
        assert f"### `{route.operation.method.upper()} {route.path}`" in document("api.md")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_and_paths_that_are_shown_exist(name: str) -> None:
    text = DOCUMENTS[name]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^ {4}|^\$ |`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    commands = cli._command.commands.keys()
    assert set(re.findall(r"(?:^ {4}|^\$ |`)marketflow ([a-z]+)", text, re.MULTILINE)) <= commands
    for path in re.findall(r"`((?:docs|tests|docker|sources|marketflow|actors|testgen|requirements)/[\w./-]+)`", text):
        # One shows what is to be made, and .env is the user's.
        if name != "docs/extending.md" and not path.endswith(".env"):
            assert (ROOT / path).exists() or (ROOT / Path(name).parent / path).exists(), path


def test_flags_that_are_shown_exist() -> None:
    shown = {flag for text in DOCUMENTS.values() for flag in re.findall(r"marketflow run[^`\n]*?(--[a-z]+)", text)}
    usage = CliRunner().invoke(cli._command, ["run", "--help"]).output
    assert shown
    assert all(flag in usage for flag in shown)


def test_what_the_readme_says_of_a_start_is_what_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    from marketflow.server.parent import _tell  # noqa: PLC0415 - what a start prints, without one

    _tell("http://127.0.0.1:8080", "BTCUSDT")
    said = capsys.readouterr().out
    assert said in DOCUMENTS["README.md"]
    assert said in document("getting-started.md")


def test_the_examples_run() -> None:
    for example in (ROOT / "docs/examples").glob("*.py"):
        done = subprocess.run([sys.executable, str(example)], capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stderr


def test_requirements_are_pinned_by_hash() -> None:
    for file in (ROOT / "requirements").glob("*.txt"):
        if file.name == "lowest.txt":
            continue  # constraints of a test environment
        text = file.read_text().replace("\\\n", " ")
        pinned = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        assert pinned
        for line in pinned:
            assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", line), line
            assert "--hash=sha256:" in line, line
