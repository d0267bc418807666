-- One row for each window of each pair and exchange; docs/database.md tells the rest.
CREATE TABLE aggregated_prices (
    mode          text COLLATE "C" NOT NULL CHECK (mode IN ('live', 'test')),
    pair_name     text COLLATE "C" NOT NULL,
    exchange      text COLLATE "C" NOT NULL,
    window_start  timestamptz      NOT NULL,
    "timestamp"   timestamptz      NOT NULL,
    average_price double precision NOT NULL,
    min_price     double precision NOT NULL,
    max_price     double precision NOT NULL,
    open_price    double precision NOT NULL,
    close_price   double precision NOT NULL,
    tick_count    bigint           NOT NULL CHECK (tick_count > 0),
    open_time     bigint           NOT NULL,
    close_time    bigint           NOT NULL,
    high_time     bigint           NOT NULL,
    low_time      bigint           NOT NULL,
    total_price   double precision NOT NULL,
    PRIMARY KEY (mode, exchange, pair_name, window_start)
) PARTITION BY RANGE (window_start);

COMMENT ON COLUMN aggregated_prices.open_time IS 'time of the first tick, Unix ms';
COMMENT ON COLUMN aggregated_prices.close_time IS 'time of the last tick, Unix ms';
COMMENT ON COLUMN aggregated_prices.high_time IS 'time of the tick of max_price, Unix ms';
COMMENT ON COLUMN aggregated_prices.low_time IS 'time of the tick of min_price, Unix ms';
COMMENT ON COLUMN aggregated_prices.total_price IS 'sum of the prices of the ticks';

-- Highest, lowest and average over a period, of one exchange or all, from the index alone.
CREATE INDEX aggregated_prices_period ON aggregated_prices (mode, pair_name, window_start)
    INCLUDE (exchange, max_price, high_time, min_price, low_time, total_price, tick_count);

-- The windows to resume at a start, and the rows to archive.
CREATE INDEX aggregated_prices_start ON aggregated_prices (window_start);
