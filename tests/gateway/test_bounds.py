"""The bounds of what is parsed, each just kept and just passed."""

from __future__ import annotations

import json

import pytest

from cloche.core.errors import AwsError
from cloche.gateway import cbor_values, json_values, query, xml_values
from cloche.gateway.crowd import Crowd
from cloche.gateway.limits import DEPTH, ELEMENTS, FORM_FIELDS, FORM_NAME_PARTS, FORM_NODES, NODES
from cloche.gateway.message import Request
from cloche.gateway.scalars import Malformed


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_json() -> None:
    assert json_values.load(nested(DEPTH)) is not None
    with pytest.raises(AwsError, match="nested more than 64 deep") as caught:
        json_values.load(b'{"a":' + nested(DEPTH) + b"}")
    assert caught.value.code == "SerializationException"
    assert len(json_values.load(b"[" + b"0," * (NODES - 2) + b"0]")) == NODES - 1
    with pytest.raises(AwsError, match=f"The body is not JSON: it has more than {NODES} values"):
        json_values.load(b"[" + b"0," * NODES + b"0]")
    # Commas and brackets within text are none of the document's.
    text = '",[{\\' * NODES
    assert json_values.load(json.dumps([text, text]).encode()) == [text, text]


@pytest.mark.parametrize("scalar", [b"0", b'"a"', b"null", b"[]", b"{}"])
def test_json_of_one_value(scalar: bytes) -> None:
    assert json_values.load(scalar) == json.loads(scalar)


def test_cbor() -> None:
    assert cbor_values.load(b"\x81" * (DEPTH - 1) + b"\x00") is not None
    with pytest.raises(AwsError, match="nested too deeply"):
        cbor_values.load(b"\x81" * DEPTH + b"\x00")
    wide = cbor_values.head(4, NODES - 1) + b"\x00" * (NODES - 1)
    assert len(cbor_values.load(wide)) == NODES - 1
    with pytest.raises(AwsError, match=f"it has more than {NODES} values"):
        cbor_values.load(cbor_values.head(4, NODES) + b"\x00" * NODES)


@pytest.mark.parametrize("depth", [900, 100_000, 5_000_000])
def test_json_that_is_very_deep(depth: int) -> None:
    with pytest.raises(AwsError, match=r"not JSON|nested more than") as caught:
        json_values.load(nested(depth))
    assert caught.value.code == "SerializationException"


@pytest.mark.parametrize(
    "body",
    [
        b"\x81" * 5_000_000 + b"\x00",
        b"\x9f" * 5_000_000,
        cbor_values.head(4, 2**63) + b"\x00",
        cbor_values.head(2, 2**63) + b"\x00",
    ],
    ids=["deep", "open", "promised", "long"],
)
def test_cbor_that_promises_too_much(body: bytes) -> None:
    with pytest.raises(AwsError, match="The body is not CBOR"):
        cbor_values.load(body)


def test_xml() -> None:
    def deep(depth: int) -> bytes:
        return b"<a>" * depth + b"</a>" * depth

    assert xml_values.load(deep(DEPTH)).tag == "a"
    with pytest.raises(Malformed, match="nested more than 64 deep"):
        xml_values.load(deep(DEPTH + 1))
    with pytest.raises(Malformed, match=f"more than {ELEMENTS} elements"):
        xml_values.load(b"<a>" + b"<b/>" * ELEMENTS + b"</a>")
    assert len(xml_values.load(b"<a>" + b"<b/>" * (ELEMENTS - 1) + b"</a>")) == ELEMENTS - 1
    found = xml_values.load(b'<a xmlns="urn:x"><b>1</b><!-- c --><b>2</b></a>')
    assert [one.text for one in found.findall("b")] == ["1", "2"]


DOCTYPE = '<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le", "utf-16-be"])
def test_document_types_in_any_encoding(encoding: str) -> None:
    with pytest.raises(Malformed):
        xml_values.load(DOCTYPE.encode(encoding))
    with pytest.raises(Malformed, match="document types"):
        xml_values.load(DOCTYPE.encode("utf-16"))


def form(body: str) -> Request:
    return Request(method="POST", path="/", body=body.encode())


def test_forms() -> None:
    parts = ".".join(["a"] * FORM_NAME_PARTS)
    assert query.tree([(parts, "x")])
    fields = FORM_NODES // FORM_NAME_PARTS
    many = [(parts, "x")] * fields
    assert query.tree(many)
    for pairs in ([(f"{parts}.a", "x")], [("." * 3_000_000, "")], [*many, *many]):
        with pytest.raises(AwsError, match="The query string is malformed") as caught:
            query.tree(pairs)
        assert (caught.value.code, caught.value.status) == ("MalformedQueryString", 404)
    assert len(query.form_of(form("&".join(["a=b"] * FORM_FIELDS)))) == FORM_FIELDS
    with pytest.raises(AwsError, match="The query string is malformed"):
        query.form_of(form("&".join(["a=b"] * (FORM_FIELDS + 1))))


class Member:
    """A connection that notes its end."""

    def __init__(self) -> None:
        self.closed = False

    def abort(self) -> None:
        self.closed = True


def test_who_leaves_a_crowd_first() -> None:
    crowd = Crowd()
    crowd.most, crowd.most_waiting, crowd.most_silent = 6, 3, 2
    silent = [Member() for _ in range(3)]
    for one in silent:
        crowd.arrived(one)
    assert [one.closed for one in silent] == [True, False, False]
    waiting = [Member() for _ in range(4)]
    for one in waiting:
        crowd.arrived(one)
        crowd.busy(one)
        crowd.waits(one)
    # One was closed because too many wait, one because too many silent ones came.
    assert [one.closed for one in waiting] == [True, False, False, False]
    busy = [Member() for _ in range(6)]
    for one in busy:
        crowd.arrived(one)
        crowd.busy(one)
    assert all(one.closed for one in waiting) and all(one.closed for one in silent)
    assert not any(one.closed for one in busy)
    late = Member()
    crowd.arrived(late)
    assert late.closed and len(crowd.members) == 6
    crowd.left(busy[0])
    crowd.arrived(another := Member())
    assert not another.closed
