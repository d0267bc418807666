"""Opening a connection to PostgreSQL with the settings that every session of MarketFlow has."""

import math

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812 - psycopg2 names this class in lower case
from psycopg2.extensions import parse_dsn

from marketflow.errors import ConfigurationError

# Floats in full and times in UTC whatever the server's defaults; no plan here is worth compiling.
_SETTINGS = """
    SET statement_timeout = {timeout_ms};
    SET idle_in_transaction_session_timeout = '60s';
    SET client_min_messages = warning;
    SET TIME ZONE 'UTC';
    SET extra_float_digits = 1;
    SET jit = off;
    SET max_parallel_workers_per_gather = 0
"""


def validate(dsn: str) -> str:
    """Return the connection string. Raises ConfigurationError, which does not repeat it, when libpq cannot read it."""
    try:
        parse_dsn(dsn)
    except psycopg2.Error:
        accepted = "a connection string such as postgresql://user@host/name is expected"
        raise ConfigurationError(f"postgres.dsn: {accepted}") from None
    return dsn


def connect(dsn: str, timeout: float) -> Connection:
    """Open a connection in autocommit; blocks the thread, `timeout` s at most per address. Raises psycopg2.Error."""
    connection = psycopg2.connect(
        dsn,
        connect_timeout=math.ceil(timeout),
        fallback_application_name="marketflow",
        client_encoding="UTF8",
        keepalives=1,
        keepalives_idle=10,
        keepalives_interval=5,
        keepalives_count=3,
        tcp_user_timeout=20_000,
    )
    connection.autocommit = True
    return connection


def prepare(connection: Connection, timeout: float) -> None:
    """Give the session its settings; the server cancels a statement after `timeout` seconds. Raises psycopg2.Error."""
    with connection.cursor() as cursor:
        cursor.execute(_SETTINGS.format(timeout_ms=math.ceil(timeout * 1000)))
