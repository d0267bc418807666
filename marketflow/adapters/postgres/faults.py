"""Which errors of psycopg2 mean that the server is away or refuses, and how they are worded."""

import psycopg2
from psycopg2 import errors

from marketflow.errors import Unavailable

_UNAVAILABLE = (
    psycopg2.OperationalError,  # away, shutting down, out of disk or memory, too slow, deadlock
    psycopg2.InterfaceError,  # closed under us
    psycopg2.InternalError,  # read-only, damaged
    errors.InsufficientPrivilege,
    errors.UndefinedTable,  # not migrated: a new database in the place of the old one
    errors.CheckViolation,  # a partition was archived between our look and our insert
    errors.NumericValueOutOfRange,  # a sum of prices that no double can hold
)

_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "does not exist",  # the role or the database
    "no pg_hba.conf entry",
    "permission denied",
    "is not permitted to log in",
    "is not currently accepting connections",
    "does not support SSL",
    "certificate",
)


def unavailable(error: psycopg2.Error) -> Unavailable | None:
    """Return what to raise for an error of the server or the way to it; None for a fault of our own."""
    # What libpq cannot classify (a connection cut in mid-answer) is a DatabaseError and none of its subclasses.
    if isinstance(error, _UNAVAILABLE) or type(error) is psycopg2.DatabaseError:
        return Unavailable(f"PostgreSQL: {_reason(error)}")
    return None


def refusal(error: BaseException | None) -> str | None:
    """Return the reason of a failed connect that fails until somebody changes the server or the configuration.

    The server's code is not known for a failed connect, only its words. What is not known to be a refusal is not one.
    """
    if isinstance(error, psycopg2.OperationalError) and any(words in str(error) for words in _REFUSALS):
        return _reason(error)
    return None


def _reason(error: psycopg2.Error) -> str:
    """Return the first line of an error: later ones quote rows and queries."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
