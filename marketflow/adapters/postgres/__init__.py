"""PostgreSQL: the table aggregated_prices behind `marketflow.ports.WindowStore`, its migrations and its archive."""

from marketflow.adapters.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
