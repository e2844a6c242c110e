"""Where the ledger's Redis is: from a URL, or from a client that somebody else made.

Either is read for its settings only (addresses, database, credentials, TLS). The connections are
our own, because their time-outs and retries decide how long a call may be held up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
from redis.asyncio.cluster import ClusterNode as AsyncNode
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry

from ...errors import ConfigurationError

_KEPT = ("db", "username", "password", "credential_provider", "client_name")
_FORMS = (
    "redis://host:6379/0, rediss:// (TLS), unix:///path/to/socket, "
    "redis+cluster://host1:6379,host2:6379 (rediss+cluster://), "
    "redis+sentinel://host1:26379,host2:26379/service/0 (rediss+sentinel://)"
)
_SSL = (redis.SSLConnection, redis.asyncio.SSLConnection)


@dataclass(frozen=True)
class Place:
    """A Redis, as far as a client of it must know.

    Attributes:
        nodes: host and port of the server, or of the cluster's nodes or the sentinels that are
            known; for a unix socket its path and 0.
        options: what redis-py calls the other settings.
        service: the name that the sentinels know it by; None if there are none.
        cluster: whether it is a Redis Cluster.
    """

    nodes: tuple[tuple[str, int], ...]
    options: dict[str, Any]
    service: str | None = None
    cluster: bool = False

    def __str__(self) -> str:
        where = ", ".join(f"{host}:{port}" if port else host for host, port in self.nodes)
        if self.service is not None:
            return f"{self.service} (sentinels {where})"
        return f"cluster {where}" if self.cluster else where

    def client(self, timeout: float) -> Any:
        """A blocking client; ``timeout``: seconds for one reply, or for connecting. It does not
        retry what fails: that is decided here, where the time that is left is known.
        """
        shared = self._shared(timeout, Retry(NoBackoff(), 0))
        if self.cluster:
            nodes = [ClusterNode(*node) for node in self.nodes]  # type: ignore[no-untyped-call]
            shared.pop("db", None)
            return redis.RedisCluster(startup_nodes=nodes, **shared)
        if self.service is not None:
            sentinel = redis.Sentinel(self.nodes, **shared)  # type: ignore[no-untyped-call]
            return sentinel.master_for(self.service)  # type: ignore[no-untyped-call]
        return redis.Redis(**self._address(), **shared, single_connection_client=True)

    def async_client(self, timeout: float) -> Any:
        """The same for one event loop."""
        shared = self._shared(timeout, AsyncRetry(NoBackoff(), 0))
        if self.cluster:
            nodes = [AsyncNode(*node) for node in self.nodes]
            shared.pop("db", None)
            return redis.asyncio.RedisCluster(startup_nodes=nodes, **shared)
        if self.service is not None:
            sentinel = redis.asyncio.Sentinel(list(self.nodes), **shared)  # type: ignore[no-untyped-call]
            return sentinel.master_for(self.service)
        return redis.asyncio.Redis(**self._address(), **shared)

    def _address(self) -> dict[str, Any]:
        host, port = self.nodes[0]
        return {"host": host, "port": port} if port else {"unix_socket_path": host}

    def _shared(self, timeout: float, retry: Any) -> dict[str, Any]:
        return {
            **self.options,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "retry": retry,
            "protocol": 2,  # nothing of RESP3 is used, and it costs a handshake
        }


def place(target: Any) -> Place:
    """Where a URL points, or a ready client.

    Raises:
        ConfigurationError: it is neither; the message tells the forms.
    """
    if isinstance(target, str):
        return _of_url(target)
    if isinstance(target, redis.RedisCluster):
        manager = target.nodes_manager
        return _cluster(manager.startup_nodes.values(), manager.connection_kwargs)
    if isinstance(target, redis.asyncio.RedisCluster):
        return _cluster(target.nodes_manager.startup_nodes.values(), target.connection_kwargs)
    pool = getattr(target, "connection_pool", None)
    if pool is None:
        raise ConfigurationError(f"a client of redis-py or a URL is needed ({_FORMS}): {target!r}")
    return _of_pool(pool)


def _of_url(url: str) -> Place:
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    try:
        if base not in ("redis", "rediss", "unix") or kind not in ("", "cluster", "sentinel"):
            raise ValueError("unknown scheme")
        if not kind:
            return _of_pool(redis.ConnectionPool.from_url(url))
        parts = urlsplit(f"{base}://{rest}")
        credentials, _, hosts = parts.netloc.rpartition("@")
        default = 26379 if kind == "sentinel" else 6379
        nodes = tuple(_node(host, default) for host in hosts.split(","))
        path = [unquote(part) for part in parts.path.split("/") if part]
        service = path.pop(0) if kind == "sentinel" else None
        first = f"{base}://{credentials}@{nodes[0][0]}:{nodes[0][1]}/{path[0] if path else 0}"
        single = _of_pool(redis.ConnectionPool.from_url(f"{first}?{parts.query}"))
        return Place(nodes, single.options, service, kind == "cluster")
    except (ValueError, IndexError) as error:
        hidden = rest.rpartition("@")[2]  # without the password
        raise ConfigurationError(
            f"cannot read {scheme}://{hidden} ({error}); the forms are {_FORMS}"
        ) from None


def _node(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"no host in {text!r}")
    return parts.hostname, parts.port or default


def _of_pool(pool: Any) -> Place:
    known = pool.connection_kwargs
    options = _options(known)
    if issubclass(pool.connection_class, _SSL):
        options["ssl"] = True
    service = getattr(pool, "service_name", None)
    if service is not None:
        addresses = [s.connection_pool.connection_kwargs for s in pool.sentinel_manager.sentinels]
        return Place(tuple((a["host"], int(a["port"])) for a in addresses), options, service)
    if "path" in known:
        return Place(((known["path"], 0),), options)
    return Place(((known.get("host", "localhost"), int(known.get("port", 6379))),), options)


def _cluster(nodes: Any, settings: dict[str, Any]) -> Place:
    options = _options(settings)
    if settings.get("ssl") or issubclass(settings.get("connection_class", object), _SSL):
        options["ssl"] = True
    return Place(tuple((node.host, int(node.port)) for node in nodes), options, None, True)


def _options(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in settings.items()
        if value is not None and (name in _KEPT or name.startswith("ssl_"))
    }
