"""The bodies of answers, as the contract words them: what is encoded and what the OpenAPI document describes."""

from typing import Annotated, Literal, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field

from marketflow.domain.mode import Mode
from marketflow.ports import Source

Time: TypeAlias = Annotated[int, Meta(description="Unix time in milliseconds")]
Price: TypeAlias = Annotated[float, Meta(gt=0, description="Price in the quote currency")]
Symbol: TypeAlias = Annotated[str, Meta(description="Trading pair, upper case")]
ExchangeName: TypeAlias = Annotated[str, Meta(description="Exchange that the tick came from")]
From: TypeAlias = Annotated[int, Meta(description="Start of the period, itself in it, Unix ms")]
To: TypeAlias = Annotated[int, Meta(description="End of the period, itself not in it, Unix ms")]
Ticks: TypeAlias = Annotated[int, Meta(ge=1, description="Ticks that the answer was computed from")]
AnsweredBy: TypeAlias = Annotated[Source, Meta(description="What answered; redis unless it is away")]
Period: TypeAlias = Annotated[str, Meta(description="The period, as it was asked for")]


class LatestBody(Struct, gc=False):
    """The newest price."""

    symbol: Symbol
    exchange: ExchangeName
    price: Price
    timestamp: Time
    mode: Mode
    source: AnsweredBy
    stale: Annotated[bool, Meta(description="Nothing newer for a minute")]


class AllLatestBody(Struct):
    """The newest price of every symbol and exchange that has one."""

    mode: Mode
    prices: list[LatestBody]


class ExtremeBody(Struct, gc=False):
    """The highest or lowest price of a period, and the tick that it was."""

    symbol: Symbol
    exchange: ExchangeName
    price: Price
    timestamp: Time
    period: Period
    from_: From = field(name="from")
    to: To
    ticks: Ticks
    mode: Mode
    source: AnsweredBy


class AverageBody(Struct, gc=False):
    """The average price of a period: total over count of its ticks."""

    symbol: Symbol
    exchange: Annotated[str | None, Meta(description="The exchange asked for; null: all of them")]
    price: Price
    period: Period
    from_: From = field(name="from")
    to: To
    ticks: Ticks
    mode: Mode
    source: AnsweredBy


class ModeBody(Struct):
    """The mode in force."""

    mode: Mode


class SwitchedBody(Struct):
    """The mode in force, and the one before."""

    mode: Mode
    previous: Mode
    changed: Annotated[bool, Meta(description="False when the mode was on already")]


class ComponentBody(Struct):
    """State of a server or of the actors; further fields say more."""

    status: str


class ExchangeHealthBody(Struct):
    """State of the feed of one exchange; further fields say more."""

    status: Literal["ok", "connecting", "stale"]
    last_tick_age_ms: Annotated[
        int | UnsetType | None, Meta(description="Age of the newest tick; null before the first")
    ] = UNSET


class ComponentsBody(Struct):
    """What MarketFlow stands on. When it is down, what did not answer may be missing."""

    actors: ComponentBody
    redis: ComponentBody | UnsetType = UNSET
    postgres: ComponentBody | UnsetType = UNSET
    exchanges: dict[str, ExchangeHealthBody] | UnsetType = UNSET
    ticks: Annotated[
        ComponentBody | UnsetType, Meta(description="Whether each tick received is rejected or aggregated")
    ] = UNSET


class HealthBody(Struct):
    """Health of the node: degraded means that something is away and prices are served all the same."""

    status: Literal["ok", "degraded", "down"]
    mode: Annotated[Mode | None, Meta(description="null: the actors do not answer")]
    version: str
    components: ComponentsBody


class ProbeBody(Struct):
    """Answer to a probe of an orchestrator."""

    status: Literal["ok", "down"]


class MailboxBody(Struct):
    """The mailbox of an actor; a supervisor has none, and zeros here."""

    depth: Annotated[int, Meta(description="Messages that wait")]
    bound: Annotated[int, Meta(description="Messages that may wait before a sender is held")]


class ActorBody(Struct):
    """An actor or a supervisor, as it is now."""

    name: str
    path: Annotated[str, Meta(description="Where in the tree it is")]
    kind: Annotated[str, Meta(description="Its class")]
    parent: Annotated[str | None, Meta(description="Path of its supervisor; null for the root")]
    state: Literal["new", "starting", "running", "stopping", "restarting", "stopped", "failed"]
    mailbox: MailboxBody
    handled: Annotated[int, Meta(description="Messages handled")]
    failures: int
    restarts: int
    last_message_at: Annotated[int | None, Meta(description="Unix time in milliseconds")]
    busy_ms: Annotated[int, Meta(description="Time spent in messages, in milliseconds")]
    last_failure: str | None


class ActorsBody(Struct):
    """The supervision tree, parents before children."""

    actors: list[ActorBody]


class Problem(Struct):
    """What went wrong (RFC 9457)."""

    type: Annotated[str, Meta(description="Kind of the problem, for programs to tell apart")]
    title: Annotated[str, Meta(description="What the type means")]
    status: Annotated[int, Meta(description="The HTTP status")]
    detail: Annotated[str, Meta(description="What was wrong with this request")]
