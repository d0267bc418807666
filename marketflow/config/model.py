"""Every key of the configuration: its default, what it accepts and what it means."""

from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_dir
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from marketflow.config.values import (
    all_different,
    duration,
    from_text,
    host,
    matching,
    names_postgres,
    names_redis,
    number,
    one_of,
    read_secret,
    secret,
    unique_symbols,
    whole,
)
from marketflow.domain.mode import Mode

ENV_PREFIX = "MARKETFLOW_"
_SECOND, _HOUR, _DAY = 1_000, 3_600_000, 86_400_000

Host = Annotated[str, host()]
Port = Annotated[int, whole(1, 65535)]
Symbol = Annotated[
    str, matching(r"[A-Z0-9][A-Z0-9._-]{0,31}", "a symbol (upper case letters, digits, '.', '_', '-'; 1 to 32)")
]
ExchangeName = Annotated[
    str, matching(r"[A-Za-z0-9._-]{1,64}", "a name (letters, digits, '.', '_', '-'; 1 to 64 of them)")
]
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["console", "json"]


class Section(BaseModel):
    """A table of the configuration: nothing unknown in it, and nothing changed once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Exchange(Section):
    """Where an exchange sends its ticks."""

    name: ExchangeName = Field(description="Name of the exchange in answers, keys and rows.")
    host: Host = Field(default="127.0.0.1", description="Host name or address that it listens on.")
    port: Port = Field(description="TCP port that it listens on.")


def _unique_exchanges(exchanges: tuple[Exchange, ...]) -> tuple[Exchange, ...]:
    all_different(exchange.name for exchange in exchanges)
    return exchanges


def _some_exchanges(exchanges: tuple[Exchange, ...]) -> tuple[Exchange, ...]:
    if not exchanges:
        raise ValueError("at least one exchange is expected")
    return exchanges


Exchanges = Annotated[tuple[Exchange, ...], NoDecode, BeforeValidator(from_text), AfterValidator(_unique_exchanges)]
Symbols = Annotated[tuple[Symbol, ...], NoDecode, BeforeValidator(from_text), AfterValidator(unique_symbols)]


# SECT
class Server(Section):
    """The HTTP server."""

    host: Host = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` or `::` for every interface.")
    port: Annotated[int, whole(0, 65535)] = Field(
        default=8080, description="TCP port to listen on; 0 takes a free one."
    )
    workers: Annotated[int, whole(1, 256)] = Field(
        default=1, description="Number of gunicorn workers; each hosts one node (one actor system)."
    )
    admin_token: SecretStr = Field(
        default=SecretStr(""),
        description="Bearer token for `POST /mode/*`. Empty: only clients on the loopback interface may switch.",
    )
    admin_token_file: Path | None = Field(
        default=None, description="File that holds the token, in place of `admin_token`."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, values: Any) -> Any:
        return read_secret(values, "admin_token")


class ModeSection(Section):
    """The mode."""

    initial: Annotated[Mode, one_of(Mode)] = Field(
        default="test", description="Mode to start in: `test` (generated prices) or `live` (the exchanges)."
    )


class SymbolsSection(Section):
    """The trading pairs."""

    allowed: Symbols = Field(
        default=("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT"),
        description="Trading pairs that are taken in; ticks of others are rejected.",
    )


class Redis(Section):
    """Redis or Valkey."""

    url: Annotated[
        SecretStr, secret(names_redis, "a URL that starts with redis://, rediss:// or unix:// and names a server")
    ] = Field(
        default=SecretStr(""),
        description="`redis://`, `rediss://` or `unix://` URL. Empty: an embedded server under `storage.data_dir`.",
    )
    url_file: Path | None = Field(default=None, description="File that holds the URL, in place of `url`.")

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, values: Any) -> Any:
        return read_secret(values, "url")


class Postgres(Section):
    """PostgreSQL."""

    dsn: Annotated[
        SecretStr,
        secret(
            names_postgres,
            "a postgresql:// URL (with %40, %2F and %3A for @, / and : in a password) or key=value pairs",
        ),
    ] = Field(
        default=SecretStr(""),
        description="`postgresql://` URL or `key=value` pairs. Empty: an embedded server under `storage.data_dir`.",
    )
    dsn_file: Path | None = Field(default=None, description="File that holds the DSN, in place of `dsn`.")

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, values: Any) -> Any:
        return read_secret(values, "dsn")


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _not_blank(value: Any) -> Any:
    if not isinstance(value, (str, Path)) or not str(value).strip() or "\0" in str(value):
        raise ValueError("the path of a directory is expected")
    return value


class Storage(Section):
    """What is kept, where and for how long."""

    data_dir: Annotated[Path, BeforeValidator(_not_blank), AfterValidator(_absolute)] = Field(
        default_factory=lambda: Path(user_data_dir("marketflow", appauthor=False)),
        description="Directory of the embedded servers' data, kept across restarts. One process at a time uses it.",
    )
    retention: Annotated[int, duration(_HOUR, 36_500 * _DAY)] = Field(
        default=365 * _DAY,
        description="Rows of `aggregated_prices` older than this may be archived, then dropped. "
        "Also the longest `?period=`.",
    )


class Aggregation(Section):
    """How ticks become stored windows."""

    interval: Annotated[int, duration(100, _HOUR, multiple_of=100)] = Field(
        default=60 * _SECOND, description="Length of a stored window, aligned to the Unix epoch."
    )
    lateness: Annotated[int, duration(0, _HOUR)] = Field(
        default=2 * _SECOND,
        description="How long after its end a window still waits for late ticks before it is stored.",
    )
    max_skew: Annotated[int, duration(_SECOND, _HOUR)] = Field(
        default=60 * _SECOND, description="How far a tick's timestamp may be from now; further off, it is rejected."
    )


class Live(Section):
    """Live mode."""

    exchanges: Annotated[Exchanges, AfterValidator(_some_exchanges)] = Field(
        default=tuple(Exchange(name=f"exchange{n}", port=40100 + n) for n in (1, 2, 3)),
        description="Exchanges to connect to in live mode: a list of tables with `name`, `host` and `port`.",
    )


class Testgen(Section):
    """Test mode."""

    rate: Annotated[float, number(0, 10_000_000)] = Field(
        default=50.0, description="Ticks per second and exchange; 0: as fast as they are taken."
    )
    seed: Annotated[int, whole(0, 2**63 - 1)] = Field(
        default=0,
        description="Seed of the generated prices, for the same sequence every time; 0: a new one every start.",
    )
    exchanges: Exchanges = Field(
        default=(),
        description="Where a `testgen` is running, as in `live.exchanges`. Empty: MarketFlow starts one itself, under "
        "the names of `live.exchanges`.",
    )


class Log(Section):
    """Logging."""

    level: Annotated[Level, one_of(Level)] = Field(
        default="info", description="Least level that is logged: `debug`, `info`, `warning` or `error`."
    )
    format: Annotated[Format, one_of(Format)] = Field(
        default="console", description="`console` for people, `json` for programs."
    )


class Settings(BaseSettings):
    """All of it. Times are milliseconds."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    server: Server = Field(default=Server(), description="The HTTP server.")
    mode: ModeSection = Field(default=ModeSection(), description="The mode.")
    symbols: SymbolsSection = Field(default=SymbolsSection(), description="The trading pairs.")
    redis: Redis = Field(default=Redis(), description="Redis or Valkey.")
    postgres: Postgres = Field(default=Postgres(), description="PostgreSQL.")
    storage: Storage = Field(default_factory=Storage, description="What is kept, where and for how long.")
    aggregation: Aggregation = Field(default=Aggregation(), description="How ticks become stored windows.")
    live: Live = Field(default=Live(), description="Live mode.")
    testgen: Testgen = Field(default=Testgen(), description="Test mode.")
    log: Log = Field(default=Log(), description="Logging.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the hook's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put flags before the environment, and that before the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)
