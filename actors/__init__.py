"""How MarketFlow moves: the actors, and the supervised runtime that they run on."""
