"""MarketFlow's state in Redis or Valkey: prices, the journal of open windows, and what the nodes agree on.

`connect` makes a client, `check` refuses a server that cannot serve, and the three classes implement the Protocols of
`marketflow.ports` that they are named for. The client waits cooperatively in a process that gevent has patched.
"""

from marketflow.adapters.redis.client import check, connect
from marketflow.adapters.redis.cluster import RedisCluster, new_node_name
from marketflow.adapters.redis.journal import RedisWindowJournal
from marketflow.adapters.redis.prices import RedisPriceCache

__all__ = ["check", "connect", "new_node_name", "RedisCluster", "RedisPriceCache", "RedisWindowJournal"]
