"""Real servers under a data directory, for whoever has no Redis and PostgreSQL at hand."""

from marketflow.adapters.embedded.servers import EmbeddedServers, Endpoints

__all__ = ["EmbeddedServers", "Endpoints"]
