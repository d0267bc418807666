"""What testgen can be told, by flags and by profile: fields, units, limits, and how the two are put together."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

DEFAULT_SYMBOLS = ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT")
DEFAULT_LISTEN = ("127.0.0.1:40101", "127.0.0.1:40102", "127.0.0.1:40103")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_WORDS = {
    "`float`": "a number",
    "`int`": "an integer",
    "`str`": "text",
    "`array`": "a list",
    "`object`": "a table",
    "text matching regex '^[A-Z0-9._-]{1,32}$'": "upper-case names such as BTCUSDT",
}
_DURATION = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_LISTEN = re.compile(r"(?:(?P<name>[\w.-]{1,64})=)?(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:=\[\]]+):(?P<port>\d{1,5})")


class SettingsError(Exception):
    """A setting is wrong; the message is one line that names it and says what was expected."""


class Duration(float):
    """Seconds, written as an integer and a unit: `500ms`, `30s`, `5m`."""

    __slots__ = ()


class Listen(NamedTuple):
    """One exchange and where it listens; port 0 takes a free port."""

    name: str
    host: str
    port: int


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the profile; a key that it does not know is an error."""


Share = Annotated[float, Meta(ge=0, le=1)]
Symbol = Annotated[str, Meta(pattern=r"^[A-Z0-9._-]{1,32}$")]


class Walk(_Group, frozen=True):
    """The geometric random walk of a pair. A step is one tick of that pair; returns are logarithmic."""

    drift: Annotated[float, Meta(ge=-0.01, le=0.01, description="Mean return of a step.")] = 0.0
    volatility: Annotated[
        float, Meta(ge=0, le=0.1, description="Deviation of a step's return, common to all exchanges.")
    ] = 0.0001
    noise: Annotated[
        float, Meta(ge=0, le=0.1, description="Deviation of a step's return that is the exchange's own.")
    ] = 0.00005
    jumps: Annotated[Share, Meta(description="Share of steps that jump, on all exchanges.")] = 0.0005
    jump_size: Annotated[float, Meta(ge=0, le=1, description="Deviation of a jump's return.")] = 0.003
    stride: Annotated[
        int, Meta(ge=1, le=1000, description="Steps per tick: 5 follows exchanges that are 5 times as fast.")
    ] = 1


class Bursts(_Group, frozen=True):
    """Times at which the rate is multiplied, regularly, after a quiet stretch."""

    every: Annotated[Duration, Meta(description="From the start of one burst to the next.")] = Duration(0)
    length: Annotated[Duration, Meta(description="How long a burst lasts.")] = Duration(0)
    factor: Annotated[float, Meta(ge=1, le=10000, description="What a burst multiplies the rate by.")] = 10.0

    def __post_init__(self) -> None:
        if bool(self.every) != bool(self.length) or self.length > self.every:
            raise ValueError("--burst-every and --burst-length: expected both, the length no longer than the other")


class Faults(_Group, frozen=True):
    """What goes wrong. Shares are per tick; bad lines are extra lines, so the good ticks stay complete."""

    garbage: Annotated[Share, Meta(description="Share of ticks followed by a bad line.")] = 0.0
    unknown: Annotated[Share, Meta(description="Share followed by a tick of an unknown symbol.")] = 0.0
    long_lines: Annotated[Share, Meta(description="Share followed by a line of over 64 KiB.")] = 0.0
    duplicates: Annotated[Share, Meta(description="Share of ticks sent twice.")] = 0.0
    reorder: Annotated[Share, Meta(description="Share of ticks sent after the one that follows.")] = 0.0
    late: Annotated[Share, Meta(description="Share of ticks with a timestamp of the past.")] = 0.0
    late_by: Annotated[Duration, Meta(description="How far in the past, at most.")] = Duration(1)
    clock_offset: Annotated[
        int, Meta(ge=-(10**12), le=10**12, description="Milliseconds added to every timestamp.")
    ] = 0
    split: Annotated[Share, Meta(description="Share of writes cut in two at any byte, 1 ms apart.")] = 0.0
    cut_every: Annotated[Duration, Meta(description="Close each connection after this time.")] = Duration(0)
    cut_after: Annotated[int, Meta(ge=0, description="Close each connection after this many ticks.")] = 0
    cut_mid_line: Annotated[bool, Meta(description="Cuts leave a line without its end behind.")] = False
    refuse_for: Annotated[Duration, Meta(description="Refuse connections this long after a cut.")] = Duration(0)
    stall_every: Annotated[Duration, Meta(description="Fall silent this often.")] = Duration(0)
    stall_for: Annotated[Duration, Meta(description="How long a silence lasts.")] = Duration(0)
    endless_after: Annotated[int, Meta(ge=0, description="After this many ticks send a line that never ends.")] = 0

    def __post_init__(self) -> None:
        if bool(self.stall_every) != bool(self.stall_for):
            raise ValueError("--stall-every and --stall-for: expected both")
        if self.refuse_for and not (self.cut_every or self.cut_after):
            raise ValueError("--refuse-for: expected together with --cut-every or --cut-after")

    @property
    def touches_lines(self) -> bool:
        """Whether lines are added, moved or altered, beyond what the clock offset does."""
        shares = (self.garbage, self.unknown, self.long_lines, self.duplicates, self.reorder, self.late)
        return any(shares)


class Settings(_Group, frozen=True):
    """Everything that testgen can be told."""

    listen: Annotated[
        list[str], Meta(min_length=1, description="[NAME=]HOST:PORT of an exchange; may be repeated.")
    ] = msgspec.field(default_factory=lambda: list(DEFAULT_LISTEN))
    rate: Annotated[
        float,
        Meta(ge=0, le=1e7, description="Ticks per second and exchange; 0: as fast as the client takes them."),
    ] = 50.0
    symbols: Annotated[list[Symbol], Meta(min_length=1, description="Trading pairs, A,B.")] = msgspec.field(
        default_factory=lambda: list(DEFAULT_SYMBOLS)
    )
    symbol_count: Annotated[
        int, Meta(ge=0, le=10000, description="Use this many pairs, named SYM0000USDT and on, instead.")
    ] = 0
    seed: Annotated[int, Meta(ge=0, description="Same seed, same symbols and prices; 0: a new one.")] = 0
    count: Annotated[int, Meta(ge=0, description="Ticks per connection; 0: no end.")] = 0
    close_at_end: Annotated[bool, Meta(description="Close the connection after the last tick.")] = False
    start_time: Annotated[
        int,
        Meta(ge=0, le=10**14, description="Unix ms of the first tick, then by the rate; 0: the real time."),
    ] = 0
    record: Annotated[str, Meta(description="Write what is sent to FILE.NAME.jsonl.")] = ""
    replay: Annotated[str, Meta(description="Send FILE.NAME.jsonl or else FILE instead of a walk.")] = ""
    retime: Annotated[bool, Meta(description="Replay with the time of sending as timestamps.")] = False
    prices: dict[Symbol, Annotated[float, Meta(gt=0, le=1e9)]] = {}
    walk: Walk = Walk()
    bursts: Bursts = Bursts()
    faults: Faults = Faults()

    def __post_init__(self) -> None:
        for flag, names in (("listen", [at.name for at in self.exchanges]), ("symbols", self.symbols)):
            if len(set(names)) != len(names):
                raise ValueError(f"--{flag}: expected names that differ, got {', '.join(names)}")
        if self.record and not Path(self.record).parent.is_dir():
            raise ValueError(f"--record: expected a file in a directory that exists, got {self.record}")
        for path in (self.replay_path(at.name) for at in self.exchanges) if self.replay else ():
            if not path.is_file():
                raise ValueError(f"--replay: expected a recorded file, got {path}")
        if self.retime and not self.replay:
            raise ValueError("--retime: expected together with --replay")

    @property
    def pairs(self) -> list[str]:
        """The trading pairs, given or numbered."""
        if self.symbol_count:
            return [f"SYM{number:04d}USDT" for number in range(self.symbol_count)]
        return self.symbols

    @property
    def exchanges(self) -> list[Listen]:
        """Where to listen, each with a name: its own, or `exchange` and its number."""
        parsed = [parse_listen(text) for text in self.listen]
        return [at._replace(name=at.name or f"exchange{number}") for number, at in enumerate(parsed, start=1)]

    def record_path(self, exchange: str, connection: int = 1) -> Path:
        """Where connection number `connection` (from 1) of `exchange` is recorded."""
        number = f".{connection}" if connection > 1 else ""
        return Path(f"{self.record}.{exchange}{number}.jsonl")

    def replay_path(self, exchange: str) -> Path:
        """What `exchange` replays: its own record if there is one, else the file as named."""
        own = Path(f"{self.replay}.{exchange}.jsonl")
        return own if own.exists() else Path(self.replay)


def parse_listen(text: str) -> Listen:
    """Read `[NAME=]HOST:PORT`. Raises ValueError."""
    match = _LISTEN.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"--listen: expected [NAME=]HOST:PORT, got {text!r}")
    return Listen(match["name"] or "", match["host"].strip("[]"), int(match["port"]))


def parse_duration(text: str) -> Duration:
    """Read an integer and a unit. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"expected an integer and ms, s, m, h or d, such as 30s, got {text!r}")
    return Duration(int(match[1]) * _UNITS[match[2]])


def load(profile: Path | None, flags: dict[str, Any]) -> Settings:
    """Defaults, then the profile, then flags (by the same paths). Raises SettingsError, naming key or flag."""
    values: dict[str, Any] = {}
    if profile is not None:
        try:
            values = tomllib.loads(profile.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"--profile: cannot read {profile}: {error.strerror}") from error
        except ValueError as error:
            raise SettingsError(f"--profile: expected TOML in {profile}: {error}") from error
        _convert(values, lambda key: f"--profile: {profile}: {key}".removesuffix(": "))
    for name, value in flags.items():
        group, _, key = name.rpartition(".")
        table = values.setdefault(group, {}) if group else values
        table[key] = value
    return _convert(values, flag_name)


def flag_name(key: str) -> str:
    """The flag that sets `key`: `bursts.every` is set by `--burst-every`, `faults.late` by `--late`."""
    name = key.partition("[")[0].removeprefix("faults.").removeprefix("walk.").replace("bursts.", "burst_")
    return f"--{name.replace('_', '-')}"


def _convert(values: dict[str, Any], name_of: Callable[[str], str]) -> Settings:
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$")
        for kind, word in _WORDS.items():
            message = message.replace(kind, word)
        message = message[0].lower() + message[1:]
        key = path.removesuffix("`").removeprefix(".")
        raise SettingsError(message if message.startswith("--") else f"{name_of(key)}: {message}") from error


def _decode(_kind: type, value: object) -> Duration:
    return parse_duration(str(value))
