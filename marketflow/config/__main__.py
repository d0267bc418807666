"""`python -m marketflow.config` prints docs/configuration.md: every key, read off the model."""

import sys
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from marketflow.config.model import ENV_PREFIX, Exchange, Settings
from marketflow.domain.period import format_duration

_HEAD = """\
# Configuration

Without any configuration MarketFlow runs: in test mode, on 127.0.0.1:8080, with embedded servers. This page is made
from the program (`python -m marketflow.config`), and a test keeps it so.

## Where settings come from

Each source wins over those before it:

1. the defaults below
2. a TOML file: `--config FILE`, else `$MARKETFLOW_CONFIG`, else `marketflow.toml` in the current directory
3. environment variables: `MARKETFLOW_`, the section, `__`, and the key, all in capitals
4. flags of `marketflow run`: `--host`, `--port`, `--mode`, `--workers`

A file holds only what differs from the defaults:

```toml
[server]
port = 9000

[mode]
initial = "live"

[live]
exchanges = [
    {name = "north", host = "feed.example.com", port = 40101},
    {name = "south", host = "10.0.0.7", port = 40102},
]
```

The same port by a variable, and by a flag:

```console
$ MARKETFLOW_SERVER__PORT=9000 marketflow run
$ marketflow run --port 9000
```

A list in an environment variable is JSON, or plain words with commas:

```console
$ export MARKETFLOW_SYMBOLS__ALLOWED=BTCUSDT,ETHUSDT
$ export MARKETFLOW_LIVE__EXCHANGES='[{"name": "north", "host": "feed.example.com", "port": 40101}]'
```

Secrets (`admin_token`, `url`, `dsn`) are best kept in files that only MarketFlow can read, named by the key with
`_file` at its end. Only one of the two may be given.

## What is wrong is told

A wrong value, an unknown key or an unknown variable ends the start with status 2 and one line that names it:

```console
$ MARKETFLOW_SERVER__PORT=http marketflow run
marketflow: MARKETFLOW_SERVER__PORT: an integer from 0 to 65535 is expected
$ MARKETFLOW_SERVER__WORKERS=0 marketflow run
marketflow: MARKETFLOW_SERVER__WORKERS: an integer from 1 to 256 is expected
```

## The keys

A duration is an integer and `ms`, `s`, `m`, `h` or `d`, in quotes: `"250ms"`, `"1m"`, `"365d"`.
"""
_TYPES = {"string_type": "a string", "tuple_type": "a list", "model_type": "a table as below"}
_TABLE = ("", "| key | default | accepts | meaning |", "|---|---|---|---|")


def reference() -> str:
    """Return the page."""
    lines = [_HEAD]
    for name, field in Settings.model_fields.items():
        section: Any = field.annotation
        lines += [f"### `[{name}]`", "", str(field.description), *_TABLE, *_rows(section, name), ""]
    lines += ["### An exchange, in `live.exchanges` and `testgen.exchanges`", *_TABLE, *_rows(Exchange, None)]
    return "\n".join(lines) + "\n"


def _rows(section: type[BaseModel], name: str | None) -> Iterator[str]:
    for key, field in section.model_fields.items():
        accepts = _accepts(section, key)
        shown = f"`{key}`" if name is None else f"`{key}`<br>`{ENV_PREFIX}{name.upper()}__{key.upper()}`"
        yield f"| {shown} | {_default(key, field, accepts)} | {accepts} | {field.description} |"


def _accepts(section: type[BaseModel], key: str) -> str:
    """Return what a key accepts, in the words of its own refusal."""
    found = "a string"
    for wrong in (object(), "\0"):
        try:
            section(**{key: wrong})
        except ValidationError as error:
            refusal = next(each for each in error.errors() if each["loc"][:1] in {(key,), ()})
            message = str(refusal.get("ctx", {}).get("accepted", refusal["msg"])).removeprefix("Value error, ")
            found = _TYPES.get(refusal["type"], message.replace(" is expected", "").rstrip(","))
            if len(refusal["loc"]) > 1:
                found = f"a list; each is {found}"
    return found


def _default(key: str, field: FieldInfo, accepts: str) -> str:
    if field.is_required():
        return "must be given"
    if key == "data_dir":
        return "`$XDG_DATA_HOME/marketflow`, else `~/.local/share/marketflow`"
    default = field.default
    if default is None:
        return "none"
    if "one of ms" in accepts:
        default = format_duration(default)
    return f"`{_toml(default)}`"


def _toml(value: Any) -> str:
    match value:
        case SecretStr():
            return '""'
        case str():
            return f'"{value}"'
        case tuple():
            return f"[{', '.join(map(_toml, value))}]"
        case Exchange():
            return f'{{name = "{value.name}", host = "{value.host}", port = {value.port}}}'
        case float():
            return f"{value:g}"
    return str(value)


if __name__ == "__main__":
    sys.stdout.write(reference())
