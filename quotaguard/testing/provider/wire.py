"""HTTP/1.1 on a socket, as much of it as a provider needs, and nothing of what it says.

The standard library's server parses headers as it does mail, which takes longer than all the rest
of a small answer; and it offers no way to reset a connection.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import sys
import threading
import zlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl

_MOST_HEAD = 256 * 1024
_HEX = re.compile(rb"\s*[0-9a-fA-F]+\s*")
_RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""SO_LINGER on, for no time: closing then sends RST instead of FIN."""


class Request(NamedTuple):
    """One HTTP request; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes
    keep_alive: bool


class Malformed(Exception):
    """What came is no HTTP/1.1 request that this server understands."""


class Gone(Exception):
    """The client closed the connection while it was being answered."""


class Connection:
    """One client's connection: its requests come out of it one by one, and are answered on it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()

    def read(self) -> Request | None:
        """The next request; `None` when the client has no more.

        Raises:
            Malformed: what came is no request.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MOST_HEAD:
                raise Malformed(f"The request's head is longer than {_MOST_HEAD} bytes.")
            if not self._receive():
                return None
        lines = self._take(end + 4)[:-4].decode("latin-1").split("\r\n")
        try:
            method, target, version = lines[0].split(" ")
        except ValueError:
            raise Malformed(f"This is no request line: {lines[0][:80]!r}") from None
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise Malformed(f"This is no header: {line[:80]!r}")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        path, _, query = target.partition("?")
        connection = headers.get("connection", "").lower()
        return Request(
            method,
            path,
            dict(parse_qsl(query, keep_blank_values=True)) if query else {},
            headers,
            self._content(headers),
            "close" not in connection and (version != "HTTP/1.0" or "keep-alive" in connection),
        )

    def _content(self, headers: Mapping[str, str]) -> bytes:
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "chunked" not in headers.get("transfer-encoding", "").lower():
            length = headers.get("content-length", "0")
            if not (length.isascii() and length.isdigit()):
                raise Malformed(f"content-length must be a number of bytes, not {length[:80]!r}")
            return self._exactly(int(length)) if length != "0" else b""
        content = b""
        while True:
            size = self._line().partition(b";")[0]
            if not _HEX.fullmatch(size):
                raise Malformed(f"This is no chunk size: {size[:80]!r}")
            if int(size, 16) == 0:
                while self._line():
                    continue
                return content
            content += self._exactly(int(size, 16))
            self._line()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if not self._receive():
                raise Gone
        return self._take(end + 2)[:-2]

    def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            if not self._receive():
                raise Gone
        return self._take(count)

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _receive(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except OSError:
            return False
        self._buffer += data
        return bool(data)

    def send(self, data: bytes) -> None:
        """Sends all of it.

        Raises:
            Gone: the client did not stay to take it.
        """
        try:
            self._socket.sendall(data)
        except OSError:
            raise Gone from None

    def gone(self) -> bool:
        """Whether the client has closed its side, as far as can be told without sending."""
        try:
            self._socket.setblocking(False)
            return self._socket.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self._socket.setblocking(True)

    def reset(self) -> None:
        """Cuts the connection off, the way a crashed peer or an impatient proxy does."""
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._socket.close()

    def shut(self) -> None:
        """Ends all reading and writing, from any thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()


def head(status: int, headers: Mapping[str, str]) -> bytes:
    """The status line and the headers."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Chunks:
    """A body of unknown length, each write flushed to the client, compressed if need be."""

    def __init__(self, connection: Connection, *, gzip: bool) -> None:
        self._connection = connection
        # 16 + 15 bits of window: the gzip format.
        self._zip = zlib.compressobj(wbits=31) if gzip else None

    def write(self, data: bytes, *, last: bool = False) -> None:
        """Sends a part of the body; the last one together with the body's end.

        They go together because a client may close as soon as it has read the last event.

        Raises:
            Gone: the client did not stay to take it.
        """
        if self._zip is not None:
            data = self._zip.compress(data)
            data += self._zip.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        framed = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        self._connection.send(framed + (b"0\r\n\r\n" if last else b""))


class Server:
    """Accepts connections on a loopback port, and serves each in a thread of its own.

    `serve` is called with each connection; when it returns, the connection is closed.
    """

    def __init__(self, port: int, serve: Callable[[Connection], None]) -> None:
        self._serve = serve
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self.closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(
            target=self._accept, name=f"fake provider on port {self.port}", daemon=True
        )
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                if self.closing.is_set():
                    return
                continue
            with self._lock:
                if self.closing.is_set():
                    sock.close()
                    return
                connection = Connection(sock)
                self._open.add(connection)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: Connection) -> None:
        try:
            self._serve(connection)
        except Gone:
            pass
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        """Stops accepting, and ends every connection whatever it is doing."""
        if self.closing.is_set():
            return
        self.closing.set()
        # A thread in accept() is not woken by closing the listener; a connection wakes it.
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
        self._acceptor.join(timeout=0.2)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                connection.shut()
