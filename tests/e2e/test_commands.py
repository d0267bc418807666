"""The command line and the configuration, right and wrong: exit status, and one clear line without a traceback."""

import signal
import socket
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.system import Exit, System, installed, marketflow, to_toml
from tests.support.waiting import wait_until


def check_one_line(end: Exit, status: int, *words: str) -> None:
    assert end.status == status, end
    lines = end.errors.strip().splitlines()
    assert len(lines) == 1, end
    assert all(word in lines[0] for word in words), end
    assert "Traceback" not in end.errors


def test_help_names_the_command_and_its_flags() -> None:
    assert "run" in marketflow("--help").output
    end = marketflow("run", "--help")
    assert end.status == 0
    assert all(flag in end.output for flag in ("--config", "--host", "--port", "--mode", "--workers"))


def test_version_is_the_packages() -> None:
    end = marketflow("--version")
    assert (end.status, end.errors) == (0, "")
    assert version("marketflow") in end.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--port", "http"], ["port"]),
        (["run", "--port", "65536"], ["port"]),
        (["run", "--workers", "0"], ["workers"]),
        (["run", "--mode", "demo"], ["mode"]),
        (["run", "--host", ""], ["host"]),
        (["run", "--config", "nowhere.toml"], ["--config", "nowhere.toml"]),
        (["run", "--nonsense"], ["--nonsense"]),
        (["run", "more"], ["more"]),
        (["walk"], ["walk"]),
    ],
    ids=" ".join,
)
def test_a_wrong_argument_ends_it_with_2(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    check_one_line(marketflow(*arguments, cwd=tmp_path), 2, *words)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("server", "port", "http"),
        ("server", "workers", 0),
        ("server", "colour", "red"),
        ("mode", "initial", "demo"),
        ("symbols", "allowed", ["btc usdt"]),
        ("redis", "url", "http://localhost"),
        ("postgres", "dsn", "mysql://localhost"),
        ("storage", "retention", "forever"),
        ("aggregation", "interval", "0s"),
        ("aggregation", "lateness", 5),
        ("aggregation", "max_skew", "-1s"),
        ("live", "exchanges", [{"name": "one", "host": "localhost", "port": 0}]),
        ("live", "exchanges", [{"name": "same", "port": 1}, {"name": "same", "port": 2}]),
        ("testgen", "rate", -1),
        ("log", "level", "loud"),
        ("log", "format", "xml"),
    ],
)
def test_a_wrong_key_ends_it_with_2_and_is_named(section: str, key: str, value: object, tmp_path: Path) -> None:
    file = tmp_path / "marketflow.toml"
    file.write_text(to_toml({section: {key: value}}))
    check_one_line(marketflow("run", "--config", str(file)), 2, f"{section}.{key}")
    check_one_line(marketflow("run", cwd=tmp_path), 2, f"{section}.{key}")


@pytest.mark.parametrize("text", ["[server", "[colour]\nred = 1\n", "server = 1\n", "\0"])
def test_a_file_that_is_no_configuration_ends_it_with_2(text: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.toml").write_text(text)
    check_one_line(marketflow("run", env={"MARKETFLOW_CONFIG": "wrong.toml"}, cwd=tmp_path), 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("MARKETFLOW_SERVER__PORT", "x"), ("MARKETFLOW_SERVER__COLOUR", "red"), ("MARKETFLOW_LOG__LEVEL", "loud")],
)
def test_a_wrong_variable_ends_it_with_2_and_is_named(name: str, value: str, tmp_path: Path) -> None:
    check_one_line(marketflow("run", env={name: value}, cwd=tmp_path), 2, name)


def end_of(system: System, timeout: float = 30.0) -> Exit:
    system.start()
    return Exit(system.wait(timeout), "", system.log)


def test_a_taken_port_ends_it_with_1_and_one_clear_line() -> None:
    with installed({}) as system, socket.create_server(("127.0.0.1", system.port)):
        end = end_of(system)
        assert end.status == 1
        (told,) = [line for line in end.errors.splitlines() if str(system.port) in line]
        assert "taken" in told
        assert "Traceback" not in end.errors
        assert system.processes() == []


def test_a_data_directory_that_cannot_be_used_ends_it_with_1() -> None:
    with installed({}) as system:
        system.data_dir.write_text("a file")
        end = end_of(system)
        assert end.status == 1
        assert str(system.data_dir) in end.errors.splitlines()[-1]
        assert "Traceback" not in end.errors


def test_flags_win_over_variables_and_those_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "marketflow.toml").write_text(to_toml({"server": {"port": "file"}, "log": {"level": "loud"}}))
    check_one_line(marketflow("run", cwd=tmp_path), 2, "server.port")
    wrong = {"MARKETFLOW_SERVER__PORT": "variable"}
    check_one_line(marketflow("run", env=wrong, cwd=tmp_path), 2, "MARKETFLOW_SERVER__PORT")
    right = {"MARKETFLOW_SERVER__PORT": "8080"}
    check_one_line(marketflow("run", env=right, cwd=tmp_path), 2, "log.level")
    check_one_line(marketflow("run", "--port", "flag", env=right, cwd=tmp_path), 2, "port")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_mid_start_is_clean(number: signal.Signals) -> None:
    with installed({}) as system:
        system.start()
        directory = system.data_dir
        wait_until(directory.exists, "it makes its data directory", 20)
        system.signal(number)
        assert system.wait(15) == 0
        assert system.processes() == []
