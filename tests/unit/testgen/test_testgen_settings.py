"""Settings of testgen: defaults, profile and flags, and errors that name what is wrong."""

from pathlib import Path
from typing import Any

import pytest

from testgen.cli import _options
from testgen.settings import Listen, Settings, SettingsError, flag_name, load

REPOSITORY = Path(__file__).parents[3]


def test_defaults_are_the_three_exchanges() -> None:
    settings = load(None, {})
    assert settings.exchanges == [
        Listen("exchange1", "127.0.0.1", 40101),
        Listen("exchange2", "127.0.0.1", 40102),
        Listen("exchange3", "127.0.0.1", 40103),
    ]
    assert settings.pairs == ["BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT"]


def test_flags_win_over_the_profile(tmp_path: Path) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text('rate = 5\nseed = 7\n[faults]\nstall_every = "5s"\nstall_for = "250ms"\n[prices]\nBTCUSDT = 5\n')
    settings = load(profile, {"rate": "9.5", "faults.stall_every": "2m", "walk.stride": "3", "close_at_end": True})
    assert (settings.rate, settings.seed, settings.walk.stride, settings.close_at_end) == (9.5, 7, 3, True)
    assert [float(settings.faults.stall_every), float(settings.faults.stall_for)] == [120, 0.25]
    assert settings.prices == {"BTCUSDT": 5}


def test_listen_takes_names_addresses_and_numbers_the_rest() -> None:
    settings = load(None, {"listen": ["kraken=localhost:0", "[::1]:9", "0.0.0.0:1"]})
    assert settings.exchanges == [
        Listen("kraken", "localhost", 0),
        Listen("exchange2", "::1", 9),
        Listen("exchange3", "0.0.0.0", 1),
    ]


def test_many_symbols_are_numbered() -> None:
    pairs = load(None, {"symbol_count": "5000"}).pairs
    assert (len(set(pairs)), pairs[0], pairs[-1]) == (5000, "SYM0000USDT", "SYM4999USDT")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"rate": "fast"}, "--rate: expected a number, got text"),
        ({"rate": "-1"}, "--rate: expected a number >= 0.0"),
        ({"rate": "nan"}, "--rate: expected a number >= 0.0"),
        ({"faults.late_by": "3"}, "--late-by: expected an integer and ms, s, m, h or d, such as 30s, got '3'"),
        ({"bursts.factor": "0"}, "--burst-factor: expected a number >= 1.0"),
        (
            {"bursts.every": "1s"},
            "--burst-every and --burst-length: expected both, the length no longer than the other",
        ),
        ({"faults.stall_for": "1s"}, "--stall-every and --stall-for: expected both"),
        ({"faults.refuse_for": "1s"}, "--refuse-for: expected together with --cut-every or --cut-after"),
        ({"listen": ["nowhere"]}, "--listen: expected [NAME=]HOST:PORT, got 'nowhere'"),
        ({"listen": ["a:99999"]}, "--listen: expected [NAME=]HOST:PORT, got 'a:99999'"),
        ({"listen": ["a=a:1", "a=a:2"]}, "--listen: expected names that differ, got a, a"),
        ({"symbols": ["btc"]}, "--symbols: expected upper-case names such as BTCUSDT"),
        ({"symbols": ["A", "A"]}, "--symbols: expected names that differ, got A, A"),
        ({"replay": "/nowhere/x"}, "--replay: expected a recorded file, got /nowhere/x"),
        ({"record": "/nowhere/x"}, "--record: expected a file in a directory that exists, got /nowhere/x"),
        ({"retime": True}, "--retime: expected together with --replay"),
    ],
)
def test_a_wrong_flag_is_named_with_what_was_expected(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, flags)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratee = 5", "{}: object contains unknown field `ratee`"),
        ("[faults]\nlost = 1", "{}: faults: object contains unknown field `lost`"),
        ('rate = "fast"', "{}: rate: expected a number, got text"),
        ("walk = 5", "{}: walk: expected a table, got an integer"),
        ("[faults]\nlate_by = 3", "{}: faults.late_by: expected an integer and ms, s, m, h or d, such as 30s, got '3'"),
        ("rate = ", "expected TOML in {}: Invalid value (at end of document)"),
    ],
)
def test_a_wrong_key_of_a_profile_is_named(tmp_path: Path, text: str, message: str) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(profile, {})
    assert str(caught.value) == f"--profile: {message.format(profile)}"


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--profile: cannot read .*: No such file"):
        load(tmp_path / "none.toml", {})


def test_every_setting_but_the_prices_has_a_flag() -> None:
    flags = {name for name, _ in _options(Settings)}
    groups = {"walk": "", "bursts": "", "faults": ""}
    keys = [name for name in Settings.__struct_fields__ if name not in {*groups, "prices"}]
    keys += [f"{group}.{name}" for group in groups for name in type(getattr(Settings(), group)).__struct_fields__]
    assert flags == {flag_name(key) for key in keys}
    assert len(flags) == len(keys)


@pytest.mark.parametrize("name", ["exchange1", "exchange2", "exchange3"])
def test_the_profiles_of_the_sources_are_valid(name: str) -> None:
    assert load(REPOSITORY / "sources" / name / "profile.toml", {}).seed == 1
