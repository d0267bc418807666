"""The kinds of values that configuration keys take: what each accepts, and how it says so."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_core import PydanticCustomError

from marketflow.domain.period import format_duration, parse_duration


def whole(low: int, high: int) -> BeforeValidator:
    """Accept an integer of a range, or its digits as an environment variable holds them."""

    def check(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"an integer from {low} to {high} is expected")
        return value

    return BeforeValidator(check)


def number(low: float, high: float) -> BeforeValidator:
    def check(value: Any) -> float:
        try:
            number = float(value) if type(value) in {int, float, str} else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise ValueError(f"a number from {low:.12g} to {high:.12g} is expected")
        return number

    return BeforeValidator(check)


def duration(low: int, high: int, multiple_of: int = 1) -> BeforeValidator:
    """Accept a duration such as `250ms` and make it milliseconds."""
    accepted = f"an integer and one of ms, s, m, h, d from {format_duration(low)} to {format_duration(high)}"
    if multiple_of > 1:
        accepted += f", a multiple of {format_duration(multiple_of)},"

    def check(value: Any) -> int:
        try:
            duration = parse_duration(value) if isinstance(value, str) else -1
        except ValueError:
            duration = -1
        if not low <= duration <= high or duration % multiple_of:
            raise ValueError(f"{accepted} is expected")
        return duration

    return BeforeValidator(check)


def matching(pattern: str, accepted: str) -> BeforeValidator:
    compiled = re.compile(pattern, re.ASCII)

    def check(value: Any) -> str:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(f"{accepted} is expected")
        return value

    return BeforeValidator(check)


def host() -> BeforeValidator:
    """Accept a host name or address that can be looked up, whether it is found or not."""

    def check(value: Any) -> str:
        try:
            if isinstance(value, str) and re.fullmatch(r"[^\s/\0]{1,253}", value) and value.encode("idna"):
                return value
        except UnicodeError:
            pass
        raise ValueError("a host name or address is expected")

    return BeforeValidator(check)


def one_of(choices: Any) -> BeforeValidator:
    accepted = get_args(choices)

    def check(value: Any) -> Any:
        if value not in accepted:
            raise ValueError(f"one of {', '.join(accepted)} is expected")
        return value

    return BeforeValidator(check)


def secret(check: Callable[[str], bool], accepted: str) -> AfterValidator:
    """Check a secret without ever quoting it."""

    def checked(secret: SecretStr) -> SecretStr:
        if secret.get_secret_value() and not check(secret.get_secret_value()):
            raise ValueError(f"{accepted} is expected")
        return secret

    return AfterValidator(checked)


def names_redis(url: str) -> bool:
    """Tell whether a URL can be one. An @ behind the host means that a password, cut by a / or ?, was taken for it."""
    try:
        parts = urlsplit(url)
        named = bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname)
        cut = "@" in parts.path + parts.query + parts.fragment
        valid = parts.port != 0 and (parts.scheme == "unix" or not cut)
    except ValueError:
        return False
    return parts.scheme in {"redis", "rediss", "unix"} and named and valid


def names_postgres(dsn: str) -> bool:
    """Tell whether a DSN can be one. Where a password in a URL has an @, / or : as it is, libpq takes a part of it for
    the host or the port, and says it aloud when it does not find that."""
    match = re.fullmatch(r"postgres(ql)?://(([^@/?]*)@)?(?P<hosts>[^@/?]*)([/?][^@]*)?", dsn)
    if match is None:
        return re.fullmatch(r"[a-z_]+\s*=.+", dsn) is not None
    ports = re.sub(r"\[[^\]]*\]", "", match["hosts"]).split(",")
    return dsn.partition("://")[2] != "" and all(re.fullmatch(r"[^:]*(:[0-9]*)?", port) for port in ports)


def from_text(value: Any) -> Any:
    """Read a list out of an environment variable: JSON, or plain strings separated by commas."""
    if not isinstance(value, str):
        return value
    if not value.lstrip().startswith("["):
        return [item.strip() for item in value.split(",") if item.strip()]
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("a list is expected, as JSON") from None


def all_different(names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{name} is there twice; each must be named once")
        seen.add(name)


def unique_symbols(symbols: tuple[str, ...]) -> tuple[str, ...]:
    if not symbols:
        raise ValueError("at least one symbol is expected")
    all_different(symbols)
    return symbols


def read_secret(values: Any, key: str) -> Any:
    """Put the content of the file that `<key>_file` names in the place of `key`."""
    if not isinstance(values, Mapping) or not values.get(f"{key}_file"):
        return values
    name = f"{key}_file"
    if values.get(key):
        raise PydanticCustomError("secret_file", f"only one of {key} and {name} is expected", {"key": name})
    try:
        content = Path(values[name]).read_text("utf-8").strip()
        reason = "it is empty"
    except (OSError, TypeError, ValueError) as error:
        content = ""
        reason = (error.strerror or "unreadable") if isinstance(error, OSError) else "not text"
    if not content:
        accepted = "the path of a readable file with the secret is expected"
        raise PydanticCustomError(
            "secret_file", "{accepted} ({reason})", {"key": name, "accepted": accepted, "reason": reason}
        )
    return {**values, key: content}
