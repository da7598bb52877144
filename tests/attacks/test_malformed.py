"""Malformed requests: none fails the server, costs it more than its size, or overwrites anything.

Model-driven: for every operation that is served, requests that are signed and right but for one
mutation; and raw bytes that are no request at all.
"""

from __future__ import annotations

import http.client
import random
import time
import urllib.request
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mutations import mutated
from signed_client import Answer, Connection, Keys, Wire, code_of, signed
from well_formed import LEDGER, LEDGER_KEYS, PROTOCOLS, content_of, numbered, prepare, wire_of

from cloche.testing.platform import Platform, start

LEAST, FULL = 17, 240  # requests of each operation
SHOWN = 20  # wrong answers in a failure's text
# What a request that is right is not answered with.
MALFORMED = {
    *("SerializationException", "MalformedXML", "InvalidArgument", "ValidationError", "InvalidURI"),
    *("MalformedInput", "SignatureDoesNotMatch", "InvalidSignatureException", "InvalidAction"),
    *("UnknownOperationException", "NotImplemented", "MissingParameter", "InvalidParameterValue"),
    *("InvalidParameterException", "MethodNotAllowed", "InvalidRequest"),
}
MISMATCH = {"SignatureDoesNotMatch", "InvalidSignatureException"}


@dataclass(frozen=True)
class Attacked:
    """A platform, and what sends it requests."""

    platform: Platform
    keys: Keys
    bases: dict[str, dict[str, dict[str, Any]]]
    connection: Connection
    s3: Any  # a boto3 client

    @property
    def host(self) -> str:
        """The server's host and port."""
        return self.platform.address.removeprefix("http://")

    def send(self, wire: Wire) -> Answer:
        """Sign and send a request."""
        return self.connection.send(signed(wire, self.host, self.keys), wire.method)

    def healthy(self) -> None:
        """Fail unless the server answers, and the ledger is what it was."""
        with urllib.request.urlopen(f"{self.platform.address}/_cloche/health", timeout=10) as one:
            assert one.status == 200
        for key in LEDGER_KEYS:
            assert self.s3.get_object(Bucket=LEDGER, Key=key)["Body"].read() == content_of(key)

    def cpu_s(self) -> float:
        """Return the CPU time that the server's event loop has used."""
        ident = self.platform.thread.ident
        assert ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(ident))


@contextmanager
def attacking(home: Path) -> Iterator[Attacked]:
    """Run a platform whose loops stand still, with what the requests name."""
    with start(home) as platform:
        exports = platform.environment("root")
        keys = Keys(
            exports["AWS_ACCESS_KEY_ID"],
            exports["AWS_SECRET_ACCESS_KEY"],
            exports.get("AWS_SESSION_TOKEN"),
        )
        connection = Connection(platform.address)
        s3 = platform.client("s3", as_="root")
        yield Attacked(platform, keys, prepare(platform), connection, s3)
        connection.close()


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    with attacking(tmp_path_factory.mktemp("home")) as one:
        yield one


SPOKEN = [(service, protocol) for service, these in PROTOCOLS.items() for protocol in these]


@pytest.mark.control("Each of these is understood; what follows differs in one thing.")
@pytest.mark.parametrize(("service", "protocol"), SPOKEN)
def test_unmutated_requests_are_understood(attacked: Attacked, service: str, protocol: str) -> None:
    served = attacked.platform.app.gateway.parts.services[service].operations
    assert attacked.bases[service].keys() == served.keys()
    wrong = []
    for operation, parameters in attacked.bases[service].items():
        wire = wire_of(service, protocol, operation, numbered(parameters, 0))
        answer = attacked.send(wire)
        code = code_of(answer, wire.method)
        missing = b"Endpoint e of account 123456789012 not found." in answer.body  # it never runs
        if answer.status >= 500 or (code in MALFORMED and not missing):
            wrong.append(f"{operation}: {answer.status} {answer.body[:300]!r}")
    assert not wrong, "\n".join(wrong)
    attacked.healthy()


@pytest.mark.timeout(1800)
@pytest.mark.control("At 0e393ec 69 kinds of them were answered with 500, and one overwrote.")
@pytest.mark.parametrize(("service", "protocol"), SPOKEN)
def test_no_mutated_request_fails_the_server(
    attacked: Attacked, extent: Any, service: str, protocol: str
) -> None:
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    mismatches = total = 0
    for operation, parameters in attacked.bases[service].items():
        chance = random.Random(f"{extent.seed} {service} {protocol} {operation}")
        for number in range(extent.of(LEAST, FULL)):
            base = wire_of(service, protocol, operation, numbered(parameters, total + 1))
            kind, wire = mutated(base, chance)
            total += 1
            try:
                answer = attacked.send(wire)
                problem, code = judge(answer, wire)
            except (OSError, http.client.HTTPException) as error:
                problem, code = f"no answer: {error!r}", ""
            kinds[kind] += 1
            mismatches += code in MISMATCH
            if problem:
                wrong.append(f"{operation} {number} {kind}: {problem}\n  {shown(wire)}")
    assert not wrong, f"{len(wrong)} of {total}, {kinds}:\n" + "\n".join(wrong[:SHOWN])
    assert mismatches < total / 10, "too many did not get beyond their signature"
    attacked.healthy()


def judge(answer: Answer, wire: Wire) -> tuple[str, str]:
    """Return what is wrong with an answer ("": nothing), and the error's code."""
    try:
        code = code_of(answer, wire.method)
    except (ValueError, ET.ParseError) as error:
        return f"{answer.status} does not parse: {error}", ""
    refused = answer.status == 501 and wire.service == "s3"
    if answer.status >= 500 and not (refused and code in ("NotImplemented", "")):
        return f"{answer.status} {answer.body[:300]!r}", code
    return "", code


def shown(wire: Wire) -> str:
    """Return a request as a failure shows it."""
    target = f"{wire.path}?{wire.query}" if wire.query else wire.path
    return f"{wire.method} {target[:300]} {str(wire.headers)[:300]} {wire.body[:400]!r}"
