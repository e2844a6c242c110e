"""HTTP/1.1 itself, spoken by hand."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator

import pytest

from quotaguard.testing.provider import FakeProvider, Reply
from tests.testing.provider.calls import RawClient, chat

Speak = Callable[[bytes], bytes]
BODY = json.dumps(chat()).encode()


@pytest.fixture
def sock(provider: FakeProvider) -> Iterator[socket.socket]:
    """A bare connection to the provider."""
    with socket.create_connection(("127.0.0.1", int(provider.url.rpartition(":")[2]))) as sock:
        sock.settimeout(10)
        yield sock


def until_closed(sock: socket.socket) -> bytes:
    """All that comes before the provider closes the connection."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def test_body_in_chunks(sock: socket.socket, provider: FakeProvider) -> None:
    """As clients send what they do not know the length of; extensions and trailers are skipped."""
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
        b"Connection: close\r\n\r\n%x;ext=1\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: 1\r\n\r\n"
        % (10, BODY[:10], len(BODY) - 10, BODY[10:])
    )
    assert until_closed(sock).startswith(b"HTTP/1.1 200 OK\r\n")
    assert provider.requests[0].body == chat()


def test_body_that_asks_first(sock: socket.socket) -> None:
    """`Expect: 100-continue` is told to go on."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(BODY)}\r\n"
    sock.sendall(f"{head}Expect: 100-continue\r\nConnection: close\r\n\r\n".encode())
    assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    sock.sendall(BODY)
    assert until_closed(sock).startswith(b"HTTP/1.1 200 OK\r\n")


def test_requests_in_a_row_and_byte_by_byte(sock: socket.socket, provider: FakeProvider) -> None:
    """Two requests sent at once are both answered; one that dribbles in is too."""
    one = b"GET /v1/models HTTP/1.1\r\n\r\n"
    last = b"GET /v1/models/m HTTP/1.1\r\nConnection: close\r\n\r\n"
    sock.sendall(one + one)
    for place in range(len(last)):
        sock.sendall(last[place : place + 1])
    assert until_closed(sock).count(b"HTTP/1.1 200 OK") == 3
    assert len(provider.requests) == 3


@pytest.mark.parametrize(
    ("lines", "closes"),
    [
        (b"GET /v1/models HTTP/1.1\r\n\r\n", False),
        (b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", True),
        (b"GET /v1/models HTTP/1.0\r\n\r\n", True),
        (b"GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False),
    ],
)
def test_connection_is_kept_unless_told(
    sock: socket.socket, raw: RawClient, lines: bytes, closes: bool
) -> None:
    """As HTTP has it, by version and header."""
    sock.sendall(lines)
    head, _, content = sock.recv(65536).partition(b"\r\n\r\n")
    assert (b"connection: close" in head) == closes
    assert json.loads(content)["object"] == "list"
    if closes:
        assert sock.recv(1) == b""
    else:
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert until_closed(sock).startswith(b"HTTP/1.1 200 OK")


def test_repeated_headers_are_joined(sock: socket.socket, provider: FakeProvider) -> None:
    """One value, in the order they came."""
    sock.sendall(b"GET / HTTP/1.1\r\nX-A: 1\r\nx-a:2 \r\nConnection: close\r\n\r\n")
    until_closed(sock)
    assert provider.requests[0].headers["x-a"] == "1, 2"


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"hello\r\n\r\n", "no request line"),
        (b"GET / HTTP/1.1\r\nnothing\r\n\r\n", "no header"),
        (b"POST / HTTP/1.1\r\nContent-Length: some\r\n\r\n", "content-length must be a number"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", "no chunk size"),
        (b"GET /" + b"a" * (256 * 1024), "longer than"),
    ],
)
def test_what_is_no_http_gets_a_400(sock: socket.socket, sent: bytes, told: str) -> None:
    """The connection is closed after it, for what comes next cannot be known."""
    sock.sendall(sent)
    head, _, content = until_closed(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request")
    assert told in json.loads(content)["error"]["message"]


def test_a_client_that_leaves_in_its_own_body(sock: socket.socket, provider: FakeProvider) -> None:
    """It never made a request, and the provider goes on."""
    sock.sendall(b"POST /v1/messages HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
    sock.close()
    raw = RawClient(provider.url)
    assert raw("/v1/models").status == 200
    raw.connection.close()
    assert [seen.method for seen in provider.requests] == ["GET"]


def test_head_has_no_body(provider: FakeProvider, raw: RawClient) -> None:
    """The next answer on the connection is not confused with it."""
    provider.enqueue(Reply(body=b"page"))
    answer = raw("/anything", method="HEAD")
    assert (answer.headers["content-length"], answer.content) == ("4", b"")
    assert raw("/v1/models").json["object"] == "list"
