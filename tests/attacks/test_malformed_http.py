"""What is no HTTP, or is it twice: the server refuses, closes, and serves the next."""

from __future__ import annotations

import socket
import urllib.request
from urllib.parse import urlsplit

import pytest

from cloche.testing.platform import Platform

HOST = b"Host: h\r\n"
GET = b"GET / HTTP/1.1\r\n"
PUT = b"PUT /b/k HTTP/1.1\r\n" + HOST
RAW = {
    "no request": b"\x00\x01\x02\x03\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/9.9": b"GET / HTTP/9.9\r\n" + HOST + b"\r\n",
    "version": b"GET / HTPP/1.1\r\n" + HOST + b"\r\n",
    "no path": b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    "two paths": b"GET / / HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute": b"GET http://169.254.169.254/x HTTP/1.1\r\n" + HOST + b"\r\n",
    "authority": b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    "NUL in the path": b"GET /\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
    "bytes in the path": b"GET /\xff\xfe?\xff HTTP/1.1\r\n" + HOST + b"\r\n",
    "fragment": b"GET /b/k#x?y HTTP/1.1\r\n" + HOST + b"\r\n",
    "no host": GET + b"\r\n",
    "two hosts": GET + HOST + b"Host: i\r\n\r\n",
    "odd host": GET + b"Host: \xff[::1]:99999:1\r\n\r\n",
    "no colon": GET + HOST + b"X\r\n\r\n",
    "no name": GET + HOST + b": x\r\n\r\n",
    "space before the colon": GET + HOST + b"Content-Length : 5\r\n\r\nhello",
    "folded": GET + HOST + b"X: a\r\n b\r\n\tc\r\n\r\n",
    "NUL in a header": GET + HOST + b"X: a\x00b\r\n\r\n",
    "control in a name": GET + HOST + b"X\x01: a\r\n\r\n",
    "line feeds alone": b"GET / HTTP/1.1\nHost: h\n\n",
    "carriage returns alone": b"GET / HTTP/1.1\rHost: h\r\r",
    "long path": b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long query": b"GET /?" + b"a=b&" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "long header": GET + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
    "many headers": GET + HOST + b"X: a\r\n" * 3000 + b"\r\n",
    "two lengths": PUT + b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nhello",
    "listed lengths": PUT + b"Content-Length: 5, 5\r\n\r\nhello",
    "length and chunks": PUT
    + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "negative length": PUT + b"Content-Length: -5\r\n\r\nhello",
    "signed length": PUT + b"Content-Length: +5\r\n\r\nhello",
    "hexadecimal length": PUT + b"Content-Length: 0x5\r\n\r\nhello",
    "endless length": PUT + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\nhello",
    "length beyond 64 bits": PUT + b"Content-Length: 18446744073709551617\r\n\r\nhello",
    "no length": PUT + b"Content-Length:\r\n\r\nhello",
    "other coding": PUT + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked twice": PUT + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked, then not": PUT + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunk of no size": PUT + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
    "chunk of a sign": PUT + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "chunk of 0x": PUT + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "endless chunk": PUT + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 5000 + b"\r\nhello",
    "chunk too short": PUT + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
    "endless extension": PUT + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 70_000,
    "trailers": PUT + b"Transfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: x\r\n\r\n",
    "expectation": PUT + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    "two expectations": PUT
    + b"Expect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
    "upgrade": GET + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    "websocket": GET
    + HOST
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "pipelined": (GET + HOST + b"\r\n") * 30,
    "form that is none": b"POST / HTTP/1.1\r\n"
    + HOST
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4\r\n\r\n\xff%%=",
    "cut off": PUT + b"Content-Length: 500\r\n\r\nhello",
}


@pytest.mark.control("At 0e393ec endless headers held the server up; a right request is answered.")
@pytest.mark.parametrize("what", RAW)
def test_what_is_no_request_is_refused_and_the_next_is_served(
    platform: Platform, what: str
) -> None:
    where = urlsplit(platform.address)
    with socket.create_connection((where.hostname or "", where.port or 0), 10) as client:
        client.settimeout(10)
        answer = b""
        try:
            client.sendall(RAW[what])
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # refused before all was sent
    statuses = [line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
    assert not any(status[9:10] == b"5" for status in statuses), answer[:500]
    with urllib.request.urlopen(f"{platform.address}/_cloche/health", timeout=10) as one:
        assert one.status == 200
