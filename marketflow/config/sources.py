"""Where settings come from, which source wins, and how an error in one is told."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import SettingsConfigDict

from marketflow.config.model import ENV_PREFIX, Exchange, Settings
from marketflow.errors import ConfigurationError

CONFIG_VARIABLE = "MARKETFLOW_CONFIG"
DEFAULT_FILE = "marketflow.toml"


def load_settings(config: Path | None = None, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Return the settings of all sources; `overrides` (section, key, value) come from flags and win. Raises
    ConfigurationError with one line that names the key, or the environment variable, and what is accepted."""
    file = _config_file(config)
    flags = {section: dict(keys) for section, keys in (overrides or {}).items()}
    _check_variables()

    class Configured(Settings):
        model_config = SettingsConfigDict(toml_file=file)

    try:
        read = Configured(**flags)  # type: ignore[arg-type]  # flags are checked by the validation that this is
    except ValidationError as error:
        raise ConfigurationError(_explain(error.errors()[0], flags, file)) from None
    except OSError as error:
        raise ConfigurationError(f"{file}: a readable TOML file is expected ({error.strerror})") from None
    except ValueError as error:
        raise ConfigurationError(f"{file}: TOML is expected: {error}") from None
    # Of the public class, which can be pickled and knows no file any more.
    return Settings.model_construct(**{name: getattr(read, name) for name in Settings.model_fields})


def _config_file(config: Path | None) -> Path | None:
    if config is None and os.environ.get(CONFIG_VARIABLE):
        config, source = Path(os.environ[CONFIG_VARIABLE]), CONFIG_VARIABLE
    elif config is None:
        default = Path(DEFAULT_FILE)
        return default if default.is_file() else None
    else:
        source = "--config"
    if not config.is_file():
        raise ConfigurationError(f"{source}: the path of a TOML file is expected, and {config} is none")
    return config


def _variable(section: str, key: str) -> str:
    return f"{ENV_PREFIX}{section}__{key}".upper()


def _keys(model: Any) -> dict[str, Any]:
    return {name: field.annotation for name, field in model.model_fields.items()}


def _check_variables() -> None:
    """Refuse variables that look like ours and are not: a typing error must not pass for a setting."""
    sections = _keys(Settings)
    known = {_variable(section, key) for section, model in sections.items() for key in _keys(model)}
    for name in os.environ:
        ours, upper = name in known or name == CONFIG_VARIABLE, name.upper()
        # Names without "__" may be somebody else's: Kubernetes sets MARKETFLOW_PORT for a service of this name.
        meant = "__" in name or upper.removeprefix(ENV_PREFIX).lower() in sections
        if upper.startswith(ENV_PREFIX) and meant and not ours:
            example = _variable("server", "port")
            raise ConfigurationError(
                f"{name}: no such setting; {ENV_PREFIX}SECTION__KEY is expected, such as {example}"
            )


def _explain(error: ErrorDetails, flags: Mapping[str, Mapping[str, Any]], file: Path | None) -> str:
    """Return one line that names the key (or the variable it came from) and what is accepted."""
    path = [*error["loc"]]
    if key := error.get("ctx", {}).get("key"):
        path.append(key)
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
    origin = f" (in {file})" if file else ""
    if len(path) > 1:
        section, key = str(path[0]), str(path[1])
        if key in flags.get(section, {}):
            origin = ""
        elif (variable := _variable(section, key)) in os.environ:
            name, origin = variable + name.removeprefix(f"{section}.{key}"), ""
    match error["type"]:
        case "extra_forbidden":
            siblings = _siblings(path)
            accepted = f"no such key; known here: {', '.join(siblings)}"
        case "missing":
            accepted = "this key is expected and not there"
        case "model_type" | "model_attributes_type" | "dict_type":
            accepted = "a table is expected"
        case "tuple_type":
            accepted = "a list is expected"
        case "string_type":
            accepted = "a string is expected"
        case _:
            accepted = error["msg"].removeprefix("Value error, ")
    return f"{name}: {accepted}{origin}"


def _siblings(path: list[int | str]) -> list[str]:
    if len(path) == 1:
        return list(_keys(Settings))
    if len(path) == 2:
        return list(_keys(_keys(Settings)[str(path[0])]))
    return list(_keys(Exchange))
