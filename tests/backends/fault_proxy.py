"""A TCP proxy that does to connections what networks do: drop, delay, cut, reset."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time

FAULTS = ("drop request", "drop reply", "delay", "cut reply", "reset before", "reset after")


class FaultProxy:
    """Between a client and ``127.0.0.1:port``; ``share`` of the exchanges go wrong.

    Args:
        port: where to pass things on to.
        seed: of the faults.
        delay: seconds by which a delayed request is late.
    """

    def __init__(self, port: int, seed: int, delay: float = 0.02) -> None:
        self.share = 0.0
        self.faults = 0
        self._target = port
        self._delay = delay
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections."""
        # A blocked accept() is not ended by close() alone.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for end in list(self._open):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._target))
        self._open |= {client, server}
        try:
            while self._exchange(client, server):
                pass
        except OSError:
            pass
        finally:
            self._open -= {client, server}
            client.close()
            server.close()

    def _exchange(self, client: socket.socket, server: socket.socket) -> bool:
        """One request and its reply; whether the connection goes on."""
        request = client.recv(1 << 20)
        if not request:
            return False
        fault = self._random.choice(FAULTS) if self._random.random() < self.share else ""
        self.faults += bool(fault)
        if fault == "drop request":
            return True
        if fault == "reset before":
            return self._reset(client)
        if fault == "delay":
            time.sleep(self._delay)
        server.sendall(request)
        reply = server.recv(1 << 20)
        if fault == "drop reply":
            return True
        if fault == "reset after":
            return self._reset(client)
        if fault == "cut reply":
            client.sendall(reply[: len(reply) // 2])
            return False
        client.sendall(reply)
        return True

    @staticmethod
    def _reset(client: socket.socket) -> bool:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False
