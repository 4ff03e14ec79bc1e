"""DuckDB as it is used on a lake."""

import contextlib

import duckdb


def connect() -> duckdb.DuckDBPyConnection:
    """Return an empty DuckDB whose times are in UTC and which fetches nothing."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    with contextlib.suppress(duckdb.Error):  # without its ICU extension, DuckDB knows no other zone than UTC
        connection.execute("SET TimeZone = 'UTC'")
    return connection
