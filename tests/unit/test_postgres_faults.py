"""Which errors of psycopg2 mean that the server is away, and what is said of them."""

import psycopg2
import pytest
from psycopg2 import errors

from marketflow.adapters.postgres import PostgresStore
from marketflow.adapters.postgres.faults import refusal, unavailable
from marketflow.errors import ConfigurationError


@pytest.mark.parametrize(
    "error",
    [
        psycopg2.OperationalError("could not connect"),
        psycopg2.InterfaceError("connection already closed"),
        psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"),
        errors.DiskFull("could not extend file"),
        errors.QueryCanceled("canceling statement due to statement timeout"),
        errors.DeadlockDetected("deadlock detected"),
        errors.ReadOnlySqlTransaction("cannot execute INSERT in a read-only transaction"),
        errors.InsufficientPrivilege("permission denied for table aggregated_prices"),
        errors.UndefinedTable('relation "aggregated_prices" does not exist'),
        errors.CheckViolation('no partition of relation "aggregated_prices" found for row'),
    ],
)
def test_errors_of_the_server_mean_unavailable(error: psycopg2.Error) -> None:
    away = unavailable(error)
    assert away is not None
    assert str(away) == f"PostgreSQL: {error}"


@pytest.mark.parametrize(
    "error",
    [
        errors.SyntaxError("syntax error"),
        errors.UndefinedColumn("no such column"),
        errors.CardinalityViolation("a second time"),
        errors.NotNullViolation("null value"),
        psycopg2.DataError("invalid byte sequence"),
    ],
)
def test_faults_of_our_own_are_not_hidden(error: psycopg2.Error) -> None:
    assert unavailable(error) is None


def test_only_the_first_line_is_told() -> None:
    away = unavailable(psycopg2.OperationalError("could not extend file\nDETAIL:  row (live, BTCUSDT)\n"))
    assert str(away) == "PostgreSQL: could not extend file"


def test_an_error_without_words_is_named() -> None:
    assert str(unavailable(psycopg2.OperationalError())) == "PostgreSQL: OperationalError"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ('FATAL:  password authentication failed for user "x"', True),
        ('FATAL:  database "x" does not exist', True),
        ('FATAL:  no pg_hba.conf entry for host "::1"', True),
        ("FATAL:  the database system is starting up", False),
        ("FATAL:  sorry, too many clients already", False),
        ("Connection refused", False),
    ],
)
def test_a_refusal_is_told_from_an_outage(words: str, refused: bool) -> None:
    assert (refusal(psycopg2.OperationalError(words)) is not None) is refused


def test_only_a_failed_connect_can_be_a_refusal() -> None:
    assert refusal(None) is None
    assert refusal(errors.UndefinedTable("does not exist")) is None


@pytest.mark.parametrize("dsn", ["postgresql://user:s3cret@[::1/db", "nonsense s3cret", "host=x pass=s3cret"])
def test_an_unreadable_connection_string_is_refused_without_repeating_it(dsn: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^postgres\.dsn: ") as caught:
        PostgresStore(dsn)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__
