"""How MarketFlow speaks to the servers outside: each package implements Protocols of `marketflow.ports`."""
