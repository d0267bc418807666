"""One example of each answer, for the OpenAPI document; the tests ask a market of known ticks for exactly these."""

from typing import Any, Final

from marketflow import __version__
from marketflow.api.bodies import (
    ActorBody,
    ActorsBody,
    AllLatestBody,
    AverageBody,
    ExtremeBody,
    LatestBody,
    MailboxBody,
    ModeBody,
    ProbeBody,
    SwitchedBody,
)

_NOW: Final = 1763827200123
_TO: Final = 1763827200100
_30S: Final = 1763827170100
_1M: Final = 1763827140100

LATEST: Final = LatestBody("BTCUSDT", "exchange2", 67012.5, _NOW, "live", "redis", False)
LATEST_ON_EXCHANGE: Final = LatestBody("BTCUSDT", "exchange1", 67011.75, 1763827200105, "live", "redis", False)
ALL_LATEST: Final = AllLatestBody(
    "live",
    [
        LATEST_ON_EXCHANGE,
        LATEST,
        LatestBody("BTCUSDT", "exchange3", 67021.0, 1763827200110, "live", "redis", False),
        LatestBody("ETHUSDT", "exchange1", 3105.25, 1763827120124, "live", "memory", True),
    ],
)

HIGHEST: Final = ExtremeBody("BTCUSDT", "exchange2", 67100.0, 1763827199883, "30s", _30S, _TO, 4500, "live", "redis")
HIGHEST_ON_EXCHANGE: Final = ExtremeBody(
    "BTCUSDT", "exchange1", 67090.0, 1763827185005, "1m", _1M, _TO, 3000, "live", "redis"
)
LOWEST: Final = ExtremeBody("BTCUSDT", "exchange3", 66950.25, 1763827171010, "30s", _30S, _TO, 4500, "live", "redis")
LOWEST_ON_EXCHANGE: Final = ExtremeBody(
    "BTCUSDT", "exchange1", 66960.5, 1763827150005, "1m", _1M, _TO, 3000, "live", "redis"
)
AVERAGE: Final = AverageBody("BTCUSDT", None, 67012.51205555556, "30s", _30S, _TO, 4500, "live", "redis")
AVERAGE_ON_EXCHANGE: Final = AverageBody(
    "BTCUSDT", "exchange1", 67012.50958333333, "1m", _1M, _TO, 3000, "live", "redis"
)

MODE: Final = ModeBody("live")
SWITCHED_TO_TEST: Final = SwitchedBody("test", "live", True)
SWITCHED_TO_LIVE: Final = SwitchedBody("live", "live", False)

HEALTH: Final[dict[str, Any]] = {
    "status": "ok",
    "mode": "live",
    "version": __version__,
    "components": {
        "redis": {"status": "ok"},
        "postgres": {"status": "ok"},
        "exchanges": {
            "exchange1": {"status": "ok", "last_tick_age_ms": 19},
            "exchange2": {"status": "ok", "last_tick_age_ms": 1},
            "exchange3": {"status": "ok", "last_tick_age_ms": 14},
        },
        "actors": {"status": "ok", "restarts": 0},
    },
}
PROBE: Final = ProbeBody("ok")
ACTORS: Final = ActorsBody(
    [
        ActorBody("root", "root", "Supervisor", None, "running", MailboxBody(0, 0), 0, 0, 0, None, 0, None),
        ActorBody(
            "cache", "root/cache", "CacheActor", "root", "running", MailboxBody(1, 1024), 48211, 0, 0, _NOW, 9120, None
        ),
    ]
)
