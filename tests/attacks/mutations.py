"""One mutation of a request that is right: its values, members, body, query, headers, path.

A mutation is a function of the request and a source of chance; None where the request has nothing
of the kind. Each gives a request that is still signed (after it was mutated) and whole HTTP.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from odd_values import (
    CHUNK_SIZES,
    DOCTYPE,
    FORM_TAILS,
    HEADERS,
    HUGE_DIGITS,
    LONG,
    PATH_PARTS,
    TEXTS,
    TOKENS,
    TRAILERS,
)
from signed_client import Wire

from cloche.gateway.shapes import api

Mutation = Callable[[Wire, random.Random], Wire | None]
JSON, QUERY, CBOR = "json", "query", "smithy-rpc-v2-cbor"
# What stands in JSON for a token that Python's encoder would not write.
RAW = re.compile(r'"@raw:([^"]*)"')


def text_of(chance: random.Random) -> str:
    """Return a text that seldom is what was asked for."""
    return "a" * LONG if chance.random() < 0.02 else chance.choice(TEXTS)


# ---------------------------------------------------------------------- JSON


def places_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all values within one."""
    found = [path]
    items = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        found += places_of(item, (*path, name))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """Return what is at a path."""
    for name in path:
        value = value[name]
    return value


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return the value with something else at a path."""
    if not path:
        return new
    at(value, path[:-1])[path[-1]] = new
    return value


def encoded(value: Any, chance: random.Random) -> bytes:
    """Return JSON with raw tokens in their places."""
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    text = RAW.sub(lambda match: match[1].replace("\\\\", "\\").replace('\\"', '"'), text)
    return text.encode("utf-8", "surrogatepass")


def odd_value(chance: random.Random, there: Any) -> Any:
    """Return something else than what is there."""
    kind = chance.randrange(8)
    if kind < 3:
        return "@raw:" + chance.choice(TOKENS).replace('"', '\\"') if kind else text_of(chance)
    if kind == 3:
        return chance.choice((None, True, False, 0, -1, 1.5, 2**31, 2**63, -(2**63) - 1, 10**30))
    if kind == 4:
        return chance.choice(([], {}, [[]], [None], [{}], {"": ""}, {"a": {}}, [[], {}], ["", ""]))
    if kind == 5:
        return "\ud800" if chance.random() < 0.3 else [there] * chance.choice((2, 40, 2000))
    if kind == 6:
        return {text_of(chance): there}
    return [there] if not isinstance(there, list) else (there[0] if there else {})


def json_value(wire: Wire, chance: random.Random) -> Wire | None:
    """Put another value somewhere."""
    if wire.protocol != JSON:
        return None
    value = json.loads(wire.body or b"{}")
    path = chance.choice(places_of(value))
    there = at(value, path)
    return wire.with_(body=encoded(put(value, path, odd_value(chance, there)), chance))


def json_member(wire: Wire, chance: random.Random) -> Wire | None:
    """Leave a member out, add one, or give one twice."""
    if wire.protocol != JSON:
        return None
    value = json.loads(wire.body or b"{}")
    paths = [path for path in places_of(value) if isinstance(at(value, path), dict)]
    inside = at(value, chance.choice(paths))
    kind = chance.randrange(3)
    if kind == 0 and inside:
        del inside[chance.choice(list(inside))]
    elif kind == 1 and inside:
        name = chance.choice(list(inside))
        text = json.dumps(value)
        first = json.dumps(name) + ":"
        again = json.dumps(odd_value(chance, None)) if chance.random() < 0.5 else "null"
        again = RAW.sub(r"\1", again).replace('\\"', '"')
        return wire.with_(body=text.replace(first, f"{first} {again}, {first}", 1).encode())
    else:
        inside[text_of(chance) or "X"] = odd_value(chance, None)
    return wire.with_(body=encoded(value, chance))


# ---------------------------------------------------------------------- forms


def pairs_of(wire: Wire) -> list[tuple[str, str]]:
    """Return a form's pairs."""
    return parse_qsl(wire.body.decode(), keep_blank_values=True)


def form_value(wire: Wire, chance: random.Random) -> Wire | None:
    """Give a parameter another value, or two, or none, or another name."""
    if wire.protocol != QUERY:
        return None
    pairs = pairs_of(wire)
    place = chance.randrange(len(pairs))
    name, value = pairs[place]
    kind = chance.randrange(5)
    if kind < 2:
        pairs[place] = (name, text_of(chance))
    elif kind == 2:
        pairs.insert(place, (name, chance.choice((value, text_of(chance)))))
    elif kind == 3:
        del pairs[place]
    else:
        pairs[place] = (odd_name(name, chance), value)
    return wire.with_(body=urlencode(pairs, errors="surrogatepass").encode())


def odd_name(name: str, chance: random.Random) -> str:
    """Return a form's name that is not quite one."""
    number = chance.choice(("0", "-1", "999999999", "9" * HUGE_DIGITS, "\u0663", "1.1", "", "x"))
    return chance.choice(
        (
            re.sub(r"\.\d+", f".{number}", name, count=1),
            f"{name}.member.{number}",
            f"{name}.entry.{number}.key",
            name.lower(),
            name.upper(),
            f"{name}.",
            f".{name}",
            name.replace(".", ".." * 50),
            name + "." * 3000,
            f"{name}\x00",
            f"{name}[]",
        )
    )


def form_bytes(wire: Wire, chance: random.Random) -> Wire | None:
    """Write the form as nobody should."""
    if wire.protocol != QUERY:
        return None
    extra = chance.choice(FORM_TAILS)
    return wire.with_(body=wire.body + extra)


# ---------------------------------------------------------------------- XML


def xml_text(wire: Wire, chance: random.Random) -> Wire | None:
    """Change an element: its text, its name, its number, or leave it out."""
    if wire.protocol != "rest-xml" or not wire.body.startswith(b"<"):
        return None
    text = wire.body.decode()
    elements = list(re.finditer(r"<(\w+)[^>]*>([^<>]*)</\1>", text)) or list(
        re.finditer(r"<(\w+)[^>]*>(.*)</\1>", text)
    )
    found = chance.choice(elements)
    name, inside = found[1], found[2]
    odd = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text_of(chance))
    new = chance.choice(
        (
            f"<{name}>{odd.replace('&', '&amp;').replace('<', '&lt;')}</{name}>",
            f"<{name}>{odd.replace('&', '&amp;').replace('<', '&lt;')}</{name}>",
            "",
            f"<{name}/>",
            found[0] * 2,
            found[0] * 1500,
            f"<{name}><{name}>{inside}</{name}></{name}>",
            f"<Other>{inside}</Other>",
            f"<{name.lower()}>{inside}</{name.lower()}>",
            f"{found[0]}<Other>x</Other>",
            f'<{name} a="b" xmlns:x="y" x:z="1">{inside}</{name}>',
            f"<{name}><![CDATA[{inside}]]></{name}>",
            f"<{name}><!-- c -->{inside}<?pi x?></{name}>",
            f"<{name}>&#0;</{name}>",
            f"<{name}>&#x1F600;&#xD800;</{name}>",
            f"<{name}>&unknown;</{name}>",
            f"<{name}>{'9' * HUGE_DIGITS}</{name}>",
            f"<x:{name}>{inside}</x:{name}>",
            f'<{name} xmlns="urn:other">{inside}</{name}>',
            "text between" + found[0],
        )
    )
    return wire.with_(body=(text[: found.start()] + new + text[found.end() :]).encode())


def xml_document(wire: Wire, chance: random.Random) -> Wire | None:
    """Write the document in another encoding, with a type, with a declaration that lies."""
    if wire.protocol != "rest-xml" or not wire.body.startswith(b"<"):
        return None
    text = wire.body.decode()
    root = re.match(r"<(\w+)", text)
    assert root is not None
    declared = '<?xml version="1.0" encoding="{}"?>'
    return wire.with_(
        body=chance.choice(
            (
                (DOCTYPE + text).encode(),
                (DOCTYPE + text.replace("</", "&x;</", 1)).encode("utf-16"),
                (declared.format("UTF-16") + DOCTYPE + text).encode("utf-16-be"),
                text.encode("utf-16"),
                text.encode("utf-32"),
                declared.format("utf-7").encode() + text.encode(),
                declared.format("cp037").encode() + text.encode(),
                declared.format("iso-8859-1").encode() + text.encode() + b"\xff",
                declared.format("x" * 50).encode() + text.encode(),
                ('<?xml version="1.1"?>' + text).encode(),
                b"\xef\xbb\xbf" + text.encode(),
                text.replace(root[1], "Other").encode(),
                ("<a>" * 50_000).encode(),
                ("<a>" * 2000 + "</a>" * 2000).encode(),
                text.encode()[: chance.randrange(len(text))],
                (text + text).encode(),
                (text + " " * LONG).encode(),
                text.encode().replace(b">", b">\xff", 1),
                text.encode().replace(b">", b">\x00", 1),
                (f"<{root[1]} " + " ".join(f'a{n}="1"' for n in range(3000)) + "/>").encode(),
            )
        )
    )


# ---------------------------------------------------------------------- bodies of any form


def whole_body(wire: Wire, chance: random.Random) -> Wire | None:
    """Send another body: none, another form's, cut off, packed, endless."""
    body, cut = wire.body, chance.randrange(len(wire.body) + 1)
    return wire.with_(
        body=chance.choice(
            (
                *(b"", b" ", b"\x00", b"\xff\xfe", b"null", b"[]", b'""', b"0", b"{}", b"<a/>"),
                *(b"a=b", b"{", b"[" * 50_000, b'{"a":' * 50_000, b"<", b"&", b"\xef\xbb\xbf{}"),
                *(body[:cut], body + b"}", body + b"\x00", body.replace(b'"', b"'"), body * 2),
                *(
                    body.replace(b"a", b"\xff", 1),
                    b"\xef\xbb\xbf" + body,
                    body.upper(),
                    b"\x9f\x9f",
                ),
                *(
                    b"\xa1" * 3000,
                    b"\x9a\xff\xff\xff\xff",
                    b"\xbb" + b"\xff" * 8,
                    gzip.compress(body),
                ),
                *(body.decode("latin-1").encode("utf-16"), b"0\r\n\r\n", b"-----x\r\n\r\n"),
            )
        )
    )


def cbor_byte(wire: Wire, chance: random.Random) -> Wire | None:
    """Change a byte of a CBOR body, which changes a type or a length."""
    if wire.protocol != CBOR or not wire.body:
        return None
    place = chance.randrange(len(wire.body))
    new = bytes(
        [
            chance.choice(
                (0x00, 0x1B, 0x3B, 0x5B, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xF7, 0xFB, 0xFF)
            )
        ]
    )
    return wire.with_(body=wire.body[:place] + new + wire.body[place + chance.randrange(2) :])


# ---------------------------------------------------------------------- HTTP


def selectors() -> tuple[str, ...]:
    """Return the names in the query by which S3 tells its operations apart."""
    found = {
        "uploadId",
        "partNumber",
        "versionId",
        "torrent",
        "select",
        "defaultObjectAcl",
        "storageClass",
    }
    s3 = api("s3")
    for name in s3.operations:
        action = s3.action(name)
        assert action is not None
        found |= set(action.constants)
    return tuple(sorted(found))


SELECTORS = selectors()


def query_pair(wire: Wire, chance: random.Random) -> Wire | None:
    """Change a name in the query: its value, how often it is there; or leave it out."""
    parts = wire.query.split("&") if wire.query else []
    if not parts:
        return None
    place = chance.randrange(len(parts))
    name, _, value = parts[place].partition("=")
    kind = chance.randrange(4)
    if kind == 0 and whole_without(wire, name):
        del parts[place]
    elif kind == 1:
        parts.insert(
            place, f"{name}={chance.choice((value, quote(text_of(chance), errors='replace')))}"
        )
    elif kind == 2:
        parts[place] = (
            f"{name}={chance.choice(('%FF', '%', '%zz', '%C0%AF', '%00', '+', ';', '='))}"
        )
    else:
        parts[place] = f"{name}={quote(text_of(chance)[:8000], errors='replace')}"
    return wire.with_(query="&".join(parts))


def whole_without(wire: Wire, name: str) -> bool:
    """Return whether a request without a name is not simply another operation's, whole."""
    several = "&" in wire.query
    return name not in SELECTORS or (several and name in ("uploadId", "partNumber"))


def query_more(wire: Wire, chance: random.Random) -> Wire | None:
    """Add a name to the query: one that means another operation, or one that means nothing."""
    name = chance.choice(SELECTORS)
    extra = chance.choice(
        (
            *(
                name,
                f"{name}=",
                f"{name}=1",
                f"{name}={'9' * HUGE_DIGITS}",
                f"%{ord(name[0]):02x}{name[1:]}",
            ),
            *("x-id=PutObject", "Action=DeleteRole", "X-Amz-Foo=1", "a[]=b", "%00=%00", "=", "&&"),
            *(
                "X-Amz-Signature=00",
                "X-Amz-Algorithm=AWS4-HMAC-SHA256",
                "Signature=x&AWSAccessKeyId=y",
            ),
            *("a=" + "b" * 6000, "&".join(f"a{n}={n}" for n in range(400)), "a." * 500 + "=1"),
        )
    )
    return wire.with_(query=f"{wire.query}&{extra}" if wire.query else extra)


def header(wire: Wire, chance: random.Random) -> Wire | None:
    """Add a header, or another value for one; signed where it has a meaning."""
    name = chance.choice(list(HEADERS))
    value = chance.choice(HEADERS[name]).encode("utf-8").decode("latin-1")
    mutated = wire.with_()
    mutated.headers = {k: v for k, v in mutated.headers.items() if k.lower() != name.lower()}
    mutated.headers[name] = value
    return mutated


def own_header(wire: Wire, chance: random.Random) -> Wire | None:
    """Change a header that the operation has, or leave it out, or send it twice."""
    if not wire.headers:
        return None
    name = chance.choice(list(wire.headers))
    mutated = wire.with_()
    kind = chance.randrange(4)
    if kind == 0 and name.lower() != "x-amz-copy-source":
        del mutated.headers[name]
    elif kind == 1:
        mutated.late.append((name, wire.headers[name]))
    else:
        odd = re.sub(r"[\x00-\x1f\x7f]", " ", text_of(chance)[:4000])
        mutated.headers[name] = odd.encode("utf-8", "replace").decode("latin-1")
    return mutated


def late_header(wire: Wire, chance: random.Random) -> Wire | None:
    """Add what nobody signed."""
    return wire.with_(
        late=[
            chance.choice(
                (
                    *(
                        ("X", "a" * 8000),
                        ("X-" + "y" * 300, "1"),
                        ("Accept-Encoding", "\xff"),
                        ("x", ""),
                    ),
                    *(("Authorization", "Basic eA=="), ("Connection", "close"), ("TE", "trailers")),
                    *(
                        ("X-Forwarded-For", "::1"),
                        ("Forwarded", "for=x"),
                        ("Via", "\t"),
                        ("Date", "x"),
                    ),
                    *(
                        ("X-Amz-Date", "20200101T000000Z"),
                        ("Content-Type", "a/b"),
                        ("Upgrade", "h2c"),
                    ),
                )
            )
        ]
    )


def path(wire: Wire, chance: random.Random) -> Wire | None:
    """Write a part of the path as nobody should; of what is written, elsewhere."""
    parts = wire.path.split("/")
    place = chance.randrange(1, len(parts))
    odd = chance.choice(PATH_PARTS)
    if chance.random() < 0.3:
        parts.insert(place, odd)
    else:
        parts[place] = odd
    return wire.with_(path="/".join(parts) or "/")


def method(wire: Wire, chance: random.Random) -> Wire | None:
    """Use another method: not one that, with what is there, is another operation, whole."""
    others = ["PATCH", "OPTIONS", "TRACE", "FOO", "get", "POST", "HEAD"]
    if wire.service != "s3" or any(name in SELECTORS for name in names_of(wire)):
        others += ["PUT", "GET"]
    return wire.with_(method=chance.choice([other for other in others if other != wire.method]))


def names_of(wire: Wire) -> list[str]:
    """Return the names in the query."""
    return [part.partition("=")[0] for part in wire.query.split("&")]


def chunked(wire: Wire, chance: random.Random) -> Wire | None:
    """Send a payload in chunks (`aws-chunked`, unsigned) whose sizes are not quite sizes."""
    if wire.operation not in ("PutObject", "UploadPart"):
        return None
    size = chance.choice(CHUNK_SIZES)
    decoded = chance.choice(("3", "3", "3", "0", "4", "+3", "9" * HUGE_DIGITS))
    trailer = chance.choice(TRAILERS)
    if trailer:
        size = "3"
    mutated = wire.with_(body=size.encode("latin-1") + b"\r\nabc\r\n0\r\n" + trailer + b"\r\n")
    if trailer:
        mutated.headers["X-Amz-Trailer"] = chance.choice(("x-amz-checksum-crc32", "x", "", "\xff"))
    mutated.headers |= {
        "X-Amz-Content-Sha256": "STREAMING-UNSIGNED-PAYLOAD-TRAILER",
        "X-Amz-Decoded-Content-Length": decoded,
    }
    return mutated


# By how often each is tried, of those that a request has something for.
MUTATIONS: Mapping[Mutation, int] = {
    json_value: 12,
    json_member: 6,
    form_value: 10,
    form_bytes: 3,
    xml_text: 8,
    xml_document: 5,
    whole_body: 4,
    cbor_byte: 8,
    query_pair: 8,
    query_more: 5,
    header: 6,
    own_header: 3,
    late_header: 1,
    path: 3,
    method: 2,
    chunked: 4,
}


def mutated(wire: Wire, chance: random.Random) -> tuple[str, Wire]:
    """Return the name of a mutation and what it makes of a request."""
    names, weights = list(MUTATIONS), list(MUTATIONS.values())
    while True:
        mutation = chance.choices(names, weights)[0]
        found = mutation(wire, chance)
        if found is not None and found != wire:
            return mutation.__name__, found
