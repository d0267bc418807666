"""The SQL of the window store. Times of ticks are bigint, Unix ms; periods are half open."""

CREATE_INCOMING = """
    BEGIN;
    CREATE TEMPORARY TABLE IF NOT EXISTS incoming_windows (
        mode text COLLATE "C", exchange text COLLATE "C", pair_name text COLLATE "C", window_start timestamptz,
        min_price double precision, max_price double precision, open_price double precision,
        close_price double precision, total_price double precision,
        tick_count bigint, open_time bigint, close_time bigint, high_time bigint, low_time bigint
    ) ON COMMIT DELETE ROWS
"""

COPY_INCOMING = "COPY incoming_windows FROM STDIN (FORMAT binary)"

# In the order of the key, so that two writers of the same rows wait for each other and never deadlock.
MERGE_INCOMING = """
    INSERT INTO aggregated_prices AS stored (
        mode, exchange, pair_name, window_start, "timestamp", average_price, min_price, max_price,
        open_price, close_price, tick_count, open_time, close_time, high_time, low_time, total_price)
    SELECT DISTINCT ON (mode, exchange, pair_name, window_start)
        mode, exchange, pair_name, window_start, clock_timestamp(), total_price / tick_count, min_price, max_price,
        open_price, close_price, tick_count, open_time, close_time, high_time, low_time, total_price
    FROM incoming_windows
    ORDER BY mode, exchange, pair_name, window_start, tick_count DESC
    ON CONFLICT (mode, exchange, pair_name, window_start) DO UPDATE SET
        "timestamp" = EXCLUDED."timestamp", average_price = EXCLUDED.average_price,
        min_price = EXCLUDED.min_price, max_price = EXCLUDED.max_price,
        open_price = EXCLUDED.open_price, close_price = EXCLUDED.close_price, tick_count = EXCLUDED.tick_count,
        open_time = EXCLUDED.open_time, close_time = EXCLUDED.close_time,
        high_time = EXCLUDED.high_time, low_time = EXCLUDED.low_time, total_price = EXCLUDED.total_price
    WHERE EXCLUDED.tick_count >= stored.tick_count;
    COMMIT
"""

LOAD = """
    SELECT pair_name, (extract(epoch FROM window_start) * 1000)::bigint, open_price, open_time, max_price, high_time,
        min_price, low_time, close_price, close_time, total_price, tick_count
    FROM aggregated_prices
    WHERE mode = %(mode)s AND exchange = %(exchange)s AND window_start >= %(since)s
"""

# An array compares by its first element, then by its second: of equal prices the earliest time. PostgreSQL refuses a
# sum past all doubles: one exchange with prices that cannot be would take highest and lowest from everybody.
SUMMARIZE = """
    SELECT exchange, max(ARRAY[max_price, -high_time]), min(ARRAY[min_price, low_time]),
        sum(least(total_price, 1e300)), sum(tick_count)::bigint
    FROM aggregated_prices
    WHERE mode = %(mode)s AND pair_name = %(symbol)s AND window_start >= %(start)s AND window_start < %(end)s
"""
OF_EXCHANGE = " AND exchange = %(exchange)s"
WITHOUT = """
    AND (exchange, window_start) NOT IN (
        SELECT * FROM unnest(%(without_exchanges)s::text[], %(without_starts)s::timestamptz[]))
"""
BY_EXCHANGE = " GROUP BY exchange"

# Read off the primary key, whose first entry at or below a key that does not exist is the newest row. Asked for plainly
# (`WHERE pair_name = … ORDER BY window_start DESC`), the planner may walk down all rows of all pairs by time instead.
_NEWEST = """
    SELECT mode, exchange, pair_name, close_price, close_time FROM aggregated_prices
    WHERE (mode, exchange, pair_name, window_start) <= (%(mode)s, {exchange}, %(symbol)s, 'infinity'::timestamptz)
    ORDER BY mode DESC, exchange DESC, pair_name DESC, window_start DESC LIMIT 1
"""
_IS_OF_PAIR = "newest.mode = %(mode)s AND newest.pair_name = %(symbol)s AND newest.exchange ="

LATEST_OF_EXCHANGE = f"""
    SELECT exchange, close_price, close_time FROM ({_NEWEST.format(exchange="%(exchange)s")}) newest
    WHERE {_IS_OF_PAIR} %(exchange)s
"""  # noqa: S608 - put together from constants

# The exchanges are found by hopping from each to the next in the primary key.
LATEST = f"""
    WITH RECURSIVE known AS (
        (SELECT exchange FROM aggregated_prices WHERE mode = %(mode)s ORDER BY exchange LIMIT 1)
        UNION ALL
        SELECT (SELECT following.exchange FROM aggregated_prices following
                WHERE following.mode = %(mode)s AND following.exchange > known.exchange
                ORDER BY following.exchange LIMIT 1)
        FROM known WHERE known.exchange IS NOT NULL
    )
    SELECT newest.exchange, newest.close_price, newest.close_time
    FROM known CROSS JOIN LATERAL ({_NEWEST.format(exchange="known.exchange")}) newest
    WHERE {_IS_OF_PAIR} known.exchange
"""  # noqa: S608 - put together from constants

# What `check` wants to know: version, and whether the role may do what migrations and writes need.
ABILITIES = """
    SELECT current_setting('server_version_num')::int / 10000,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
        has_database_privilege(current_database(), 'TEMPORARY'),
        coalesce((
            SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('aggregated_prices')), true)
"""
