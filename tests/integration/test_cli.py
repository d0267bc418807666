"""The command `marketflow`, as a process: what it prints and how it ends."""

import socket
from pathlib import Path

import pytest

import marketflow as package
from tests.support.system import Exit, marketflow


def ends_with_one_line(done: Exit, status: int) -> str:
    assert done.status == status, done
    assert done.output == ""
    (line,) = done.errors.splitlines()
    assert line.startswith("marketflow: ")
    return line.removeprefix("marketflow: ")


def test_help_and_version() -> None:
    assert marketflow("--version") == Exit(0, f"marketflow {package.__version__}\n", "")
    helped = marketflow("run", "--help")
    assert helped.status == 0
    assert all(flag in helped.output for flag in ("--config", "--host", "--port", "--mode", "--workers"))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "command"),
        (("walk",), "walk"),
        (("run", "--nope"), "--nope"),
        (("run", "extra"), "extra"),
        (("run", "--port"), "--port"),
        (("run", "--port", "x"), "server.port: an integer from 0 to 65535 is expected"),
        (("run", "--workers", "0"), "server.workers: an integer from 1"),
        (("run", "--mode", "demo"), "mode.initial: one of live, test"),
        (("run", "--config", "none.toml"), "--config: the path of a TOML file"),
        (("archive",), "--output"),
    ],
)
def test_a_wrong_argument_ends_with_2_and_one_line(tmp_path: Path, arguments: tuple[str, ...], told: str) -> None:
    assert told in ends_with_one_line(marketflow(*arguments, cwd=tmp_path), 2)


def test_a_wrong_configuration_ends_with_2_and_one_line(tmp_path: Path) -> None:
    (tmp_path / "marketflow.toml").write_text("[server]\nport = 0\nspeed = 1\n")
    assert "server.speed: no such key" in ends_with_one_line(marketflow("run", cwd=tmp_path), 2)
    (tmp_path / "marketflow.toml").unlink()
    wrong = marketflow("run", cwd=tmp_path, env={"MARKETFLOW_LOG__LEVEL": "loud"})
    assert "MARKETFLOW_LOG__LEVEL" in ends_with_one_line(wrong, 2)


def test_a_port_that_is_taken_ends_with_1_and_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        env = {"MARKETFLOW_STORAGE__DATA_DIR": str(tmp_path / "data")}
        done = marketflow("run", "--port", port, cwd=tmp_path, env=env)
    assert ends_with_one_line(done, 1) == (
        f"cannot listen on 127.0.0.1:{port}: the port is taken (server.port names another)"
    )
    assert not (tmp_path / "data").exists()


def test_a_host_that_is_none_ends_with_1_and_one_line(tmp_path: Path) -> None:
    assert "server.host" in ends_with_one_line(marketflow("run", "--host", "203.0.113.1", cwd=tmp_path), 1)
