"""Real servers under a data directory, for whoever has no Redis and PostgreSQL at hand."""

from marketflow.adapters.embedded.directory import InUse
from marketflow.adapters.embedded.servers import EmbeddedServers, Endpoints, running_postgres

__all__ = ["EmbeddedServers", "Endpoints", "InUse", "running_postgres"]
