"""What a route is: its path, its resource, and all that the OpenAPI document says of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec

from marketflow.api.auth import Guard
from marketflow.api.errors import ProblemType
from marketflow.ports import Market

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"


class Context(NamedTuple):
    """What resources are made from."""

    market: Market
    guard: Guard
    document: bytes
    """The OpenAPI document."""


class Example(NamedTuple):
    """A request and the body of its answer."""

    request: str
    body: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One status that an operation answers with, besides its problems."""

    description: str
    status: int = 200
    media_type: str = JSON
    body: type[msgspec.Struct] | None = None
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What one method does on a route."""

    id: str
    summary: str
    answers: tuple[Answer, ...]
    problems: tuple[ProblemType, ...] = ()
    description: str = ""
    tag: str = "prices"
    method: Literal["get", "post"] = "get"
    period: bool = False
    """Whether ?period= is accepted."""
    secured: bool = False
    """Whether a configured token is asked for."""


Make: TypeAlias = Callable[[Context], object]


class Route(NamedTuple):
    """A path template, its resource, and what it does."""

    path: str
    make: Make
    operation: Operation

    @property
    def template(self) -> str:
        """The path as Falcon's router takes it: a place in paths has one name, whatever stands there."""
        first = "{exchange}" if "{exchange}" in self.path else "{symbol}"
        return self.path.replace(first, "{name}")
