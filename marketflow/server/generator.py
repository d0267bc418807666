"""The test generator as a process of MarketFlow's own, for test mode."""

import re
import signal
import sys
from collections.abc import Sequence

from marketflow.config import Exchange, Settings
from marketflow.service import LineLevel, Service, Spec

_START_TIMEOUT_S = 20.0
_LISTENING = re.compile(r"^listening (\S+) (\S+):(\d+)$")


class Generator:
    """Runs `testgen` on free loopback ports, under the names of the live exchanges."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._exchanges = tuple(
            Exchange.model_construct(name=exchange.name, host="127.0.0.1", port=0)
            for exchange in settings.live.exchanges
        )
        self.service = Service(
            Spec(
                name="testgen",
                command=self._command,
                ready=_LISTENING,
                ready_lines=len(self._exchanges),
                stop_signals=(signal.SIGTERM,),
                level=_level,
            )
        )

    def start(self) -> Settings:
        """Start it and return the settings with where it listens. Raises StartupError."""
        self.service.start()
        listening = self.service.wait_ready(_START_TIMEOUT_S)
        # From now on on the same ports, so that the feeds find it again.
        self._exchanges = tuple(Exchange(name=match[1], host=match[2], port=int(match[3])) for match in listening)
        section = self._settings.testgen.model_copy(update={"exchanges": self._exchanges})
        return self._settings.model_copy(update={"testgen": section})

    def stop(self) -> None:
        """Stop it; harmless when repeated."""
        self.service.stop(0.5)

    def _command(self) -> Sequence[str]:
        settings = self._settings.testgen
        listen = [f"{exchange.name}={exchange.host}:{exchange.port}" for exchange in self._exchanges]
        return [
            *(sys.executable, "-P", "-c", "from testgen.cli import main; main()"),
            *(word for address in listen for word in ("--listen", address)),
            *("--rate", f"{settings.rate:.12g}"),
            *("--seed", str(settings.seed)),
            *("--symbols", ",".join(self._settings.symbols.allowed)),
            "--exit-with-parent",
        ]


def _level(line: str) -> LineLevel:
    return "debug" if _LISTENING.match(line) else "warning"
