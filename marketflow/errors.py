"""Every exception of MarketFlow, in one tree.

MarketFlowError
 ├─ ConfigurationError   a wrong key or value; the message is one line that names it and what is accepted
 ├─ StartupError         what ends a start: a port taken, a backend that refuses; one line
 ├─ Unavailable          a server outside did not do what was asked
 └─ NoAnswer             a query that has no price to answer with
     ├─ UnknownSymbol
     ├─ UnknownExchange
     └─ NoData           known, but nothing received yet (or not in the period asked for)
"""


class MarketFlowError(Exception):
    """Anything that MarketFlow raises on purpose."""


class ConfigurationError(MarketFlowError):
    """A configuration or argument that is not accepted; ends a start with exit status 2."""


class StartupError(MarketFlowError):
    """Something that keeps MarketFlow from starting; ends it with exit status 1."""


class Unavailable(MarketFlowError):
    """A server outside did not do what was asked; the message says which and why, without secrets."""


class NoAnswer(MarketFlowError):
    """A query that has no price to answer with."""


class UnknownSymbol(NoAnswer):
    """The symbol is not among those allowed by the configuration."""


class UnknownExchange(NoAnswer):
    """The exchange is not configured."""


class NoData(NoAnswer):
    """The symbol and exchange are known, but there is no tick to answer from."""
