"""What MarketFlow knows about markets: ticks, bars, series, windows and periods. Pure: no I/O, no clock, no actors."""
