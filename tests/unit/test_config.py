"""Every key of the configuration: where it may come from, what it accepts, and how an error names it."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from marketflow.config import Exchange, Settings, load_settings
from marketflow.domain.period import parse_duration
from marketflow.errors import ConfigurationError


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Work in a directory without a marketflow.toml, and without variables of ours."""
    import os  # noqa: PLC0415 - for this alone

    for name in list(os.environ):
        if name.upper().startswith("MARKETFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def from_toml(text: str) -> Settings:
    path = Path("test.toml")
    path.write_text(text)
    return load_settings(path)


def error_of(text: str = "", flags: Any = None) -> str:
    """The one line of the error that a file gets, without where it was."""
    path = Path("test.toml")
    path.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(path, flags)
    message = str(caught.value)
    assert "\n" not in message
    return message.removesuffix(" (in test.toml)")


def test_defaults_are_those_of_the_contract() -> None:
    settings = load_settings()
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 8080, 1)
    assert settings.server.admin_token.get_secret_value() == ""
    assert settings.mode.initial == "test"
    assert settings.symbols.allowed == ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT")
    assert settings.redis.url.get_secret_value() == settings.postgres.dsn.get_secret_value() == ""
    assert settings.storage.data_dir.is_absolute()
    assert settings.storage.data_dir.name == "marketflow"
    assert settings.storage.retention == parse_duration("365d")
    assert settings.aggregation.interval == parse_duration("1m")
    assert settings.aggregation.lateness == parse_duration("2s")
    assert settings.aggregation.max_skew == parse_duration("1m")
    assert settings.live.exchanges == tuple(
        Exchange(name=f"exchange{n}", host="127.0.0.1", port=40100 + n) for n in (1, 2, 3)
    )
    assert (settings.testgen.rate, settings.testgen.seed, settings.testgen.exchanges) == (50, 0, ())
    assert (settings.log.level, settings.log.format) == ("info", "console")


def test_file_yields_to_environment_and_environment_to_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path("own.toml")
    path.write_text('[server]\nhost = "file"\nport = 1\nworkers = 2\n[log]\nlevel = "error"')
    monkeypatch.setenv("MARKETFLOW_SERVER__PORT", "3")
    monkeypatch.setenv("MARKETFLOW_SERVER__WORKERS", "4")
    settings = load_settings(path, {"server": {"workers": 5}})
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("file", 3, 5)
    assert settings.log.level == "error"


def test_config_file_is_the_flag_s_else_the_variable_s_else_the_directory_s(monkeypatch: pytest.MonkeyPatch) -> None:
    for port, name in enumerate(("marketflow.toml", "variable.toml", "flag.toml"), start=1):
        Path(name).write_text(f"[server]\nport = {port}")
    assert load_settings().server.port == 1
    monkeypatch.setenv("MARKETFLOW_CONFIG", "variable.toml")
    assert load_settings().server.port == 2
    assert load_settings(Path("flag.toml")).server.port == 3


def test_lists_come_from_variables_as_json_or_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFLOW_SYMBOLS__ALLOWED", "AUSDT, BUSDT")
    monkeypatch.setenv("MARKETFLOW_LIVE__EXCHANGES", '[{"name": "one", "host": "h", "port": 7}]')
    settings = load_settings()
    assert settings.symbols.allowed == ("AUSDT", "BUSDT")
    assert settings.live.exchanges == (Exchange(name="one", host="h", port=7),)
    monkeypatch.setenv("MARKETFLOW_SYMBOLS__ALLOWED", '["CUSDT"]')
    assert load_settings().symbols.allowed == ("CUSDT",)


@pytest.mark.parametrize(
    ("toml", "key", "accepted"),
    [
        ("[server]\nport = 65536", "server.port", "an integer from 0 to 65535"),
        ("[server]\nport = true", "server.port", "an integer"),
        ("[server]\nport = 80.5", "server.port", "an integer"),
        ('[server]\nport = "http"', "server.port", "an integer"),
        ("[server]\nworkers = 0", "server.workers", "an integer from 1"),
        ('[server]\nhost = ""', "server.host", "a host name"),
        ('[server]\nhost = "a b"', "server.host", "a host name"),
        ('[server]\nhost = ".."', "server.host", "a host name"),
        ('[server]\nhost = "a\\u0000"', "server.host", "a host name"),
        ("[server]\nadmin_token = 5", "server.admin_token", "a string"),
        ('[mode]\ninitial = "demo"', "mode.initial", "live, test"),
        ("[symbols]\nallowed = []", "symbols.allowed", "at least one symbol"),
        ('[symbols]\nallowed = ["A", "A"]', "symbols.allowed", "once"),
        ('[symbols]\nallowed = ["A", "b"]', "symbols.allowed[1]", "upper case"),
        ('[symbols]\nallowed = ["A:B"]', "symbols.allowed[0]", "a symbol"),
        ("[symbols]\nallowed = 5", "symbols.allowed", "a list"),
        ('[redis]\nurl = "http://host"', "redis.url", "redis://"),
        ('[redis]\nurl = "redis://"', "redis.url", "redis://"),
        ('[redis]\nurl = "redis://host:port"', "redis.url", "redis://"),
        ('[postgres]\ndsn = "mysql://host"', "postgres.dsn", "postgresql://"),
        ('[postgres]\ndsn = "postgresql://u:s3@cret@host/db"', "postgres.dsn", "%40"),
        ('[postgres]\ndsn = "postgresql://u:s3/cret@host/db"', "postgres.dsn", "%2F"),
        ('[postgres]\ndsn = "postgresql://u:7/cret@host/db"', "postgres.dsn", "%2F"),
        ('[postgres]\ndsn = "postgresql://host:s3cret/db"', "postgres.dsn", "postgresql://"),
        ('[redis]\nurl = "redis://user:77?cret@host"', "redis.url", "redis://"),
        ("[storage]\ndata_dir = 5", "storage.data_dir", "a directory"),
        ('[storage]\ndata_dir = ""', "storage.data_dir", "a directory"),
        ('[storage]\nretention = "59m"', "storage.retention", "from 1h"),
        ("[storage]\nretention = 365", "storage.retention", "ms, s, m, h, d"),
        ('[aggregation]\ninterval = "150ms"', "aggregation.interval", "a multiple of 100ms"),
        ('[aggregation]\ninterval = "2h"', "aggregation.interval", "to 1h"),
        ('[aggregation]\ninterval = "0s"', "aggregation.interval", "from 100ms"),
        ('[aggregation]\nlateness = "2"', "aggregation.lateness", "ms, s, m, h, d"),
        ('[aggregation]\nmax_skew = "999ms"', "aggregation.max_skew", "from 1s"),
        ("[live]\nexchanges = []", "live.exchanges", "at least one exchange"),
        ('[live]\nexchanges = [{name = "a"}]', "live.exchanges[0].port", "expected"),
        ('[live]\nexchanges = [{name = "a:b", port = 1}]', "live.exchanges[0].name", "a name"),
        ('[live]\nexchanges = [{name = "a", port = 0}]', "live.exchanges[0].port", "an integer from 1"),
        ('[live]\nexchanges = [{name = "a", port = 1, speed = 2}]', "live.exchanges[0].speed", "name, host, port"),
        ('[live]\nexchanges = [{name = "a", port = 1}, {name = "a", port = 2}]', "live.exchanges", "a is there twice"),
        ('[live]\nexchanges = ["a"]', "live.exchanges[0]", "a table"),
        ("[testgen]\nrate = -1", "testgen.rate", "a number from 0"),
        ("[testgen]\nrate = nan", "testgen.rate", "a number from 0"),
        ("[testgen]\nseed = -1", "testgen.seed", "an integer from 0"),
        ('[log]\nlevel = "loud"', "log.level", "debug, info, warning, error"),
        ('[log]\nformat = "xml"', "log.format", "console, json"),
        ("[server]\nporty = 1", "server.porty", "host, port, workers"),
        ("[servers]\nport = 1", "servers", "server, mode, symbols"),
        ("server = 5", "server", "a table"),
    ],
)
def test_a_wrong_value_is_told_by_key_and_by_what_is_accepted(toml: str, key: str, accepted: str) -> None:
    name, _, rest = error_of(toml).partition(": ")
    assert name == key
    assert accepted in rest


def test_an_error_names_the_variable_that_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFLOW_SERVER__PORT", "x")
    assert error_of("[server]\nport = 1").startswith("MARKETFLOW_SERVER__PORT: an integer")
    assert error_of(flags={"server": {"port": "y"}}).startswith("server.port: an integer")
    monkeypatch.delenv("MARKETFLOW_SERVER__PORT")
    monkeypatch.setenv("MARKETFLOW_LIVE__EXCHANGES", '[{"name": "a"}]')
    assert error_of().startswith("MARKETFLOW_LIVE__EXCHANGES[0].port: ")


@pytest.mark.parametrize("name", ["MARKETFLOW_SERVER__PORTY", "MARKETFLOW_SERVERS__PORT", "MARKETFLOW_SERVER"])
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert error_of().startswith(f"{name}: no such setting")


def test_a_variable_that_kubernetes_sets_for_a_service_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKETFLOW_PORT", "tcp://10.0.0.1:8080")
    assert load_settings().server.port == 8080


def test_what_is_no_toml_is_told_by_file_and_line() -> None:
    message = error_of("[server]\nport = = 1\n")
    assert message.startswith("test.toml: ")
    assert "line 2" in message


@pytest.mark.parametrize("variable", [False, True])
def test_a_missing_file_is_told_by_who_named_it(monkeypatch: pytest.MonkeyPatch, variable: bool) -> None:
    if variable:
        monkeypatch.setenv("MARKETFLOW_CONFIG", "none.toml")
    with pytest.raises(ConfigurationError, match=r"MARKETFLOW_CONFIG.*none" if variable else r"--config.*none"):
        load_settings(None if variable else Path("none.toml"))


@pytest.mark.parametrize(
    ("section", "key", "secret"),
    [
        ("server", "admin_token", "s3cret"),
        ("redis", "url", "redis://:s3cret@h"),
        ("postgres", "dsn", "host=h password=s3cret"),
    ],
)
def test_a_secret_comes_from_a_file_and_is_never_shown(section: str, key: str, secret: str) -> None:
    Path("secret").write_text(f"  {secret}\n")
    settings = from_toml(f'[{section}]\n{key}_file = "secret"')
    assert getattr(getattr(settings, section), key).get_secret_value() == secret
    assert "s3cret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    both = error_of(f'[{section}]\n{key}_file = "secret"\n{key} = "{secret}"')
    assert both == f"{section}.{key}_file: only one of {key} and {key}_file is expected"
    Path("secret").write_text("\n")
    assert "empty" in error_of(f'[{section}]\n{key}_file = "secret"')
    assert f"{section}.{key}_file: " in error_of(f'[{section}]\n{key}_file = "none"')


def test_a_wrong_secret_is_not_quoted() -> None:
    for toml in ('[redis]\nurl = "s3cret"', '[postgres]\ndsn = "s3cret"'):
        assert "s3cret" not in error_of(toml)


def test_settings_do_not_change_and_can_go_to_another_process() -> None:
    settings = from_toml('[redis]\nurl = "redis://:s3cret@h"')
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301 - of our own making
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1


def test_every_key_is_described() -> None:
    for section in Settings.model_fields.values():
        assert section.description
        assert section.annotation is not None
        assert all(field.description for field in section.annotation.model_fields.values())
