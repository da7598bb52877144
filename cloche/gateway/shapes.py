"""botocore's service models, read once into small tables that the protocols walk.

A `Shape` is a type as one place of the API uses it: the type's own traits with the traits of the
reference laid over them, as botocore does it. Shapes are made when an operation is first used;
recursive types refer to themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal
from urllib.parse import parse_qsl

from cloche.operation import LOADER

Kind = Literal[
    "structure",
    "list",
    "map",
    "string",
    "integer",
    "float",
    "boolean",
    "timestamp",
    "blob",
    "document",
]
KINDS: Mapping[str, Kind] = {
    "structure": "structure",
    "list": "list",
    "map": "map",
    "string": "string",
    "character": "string",
    "integer": "integer",
    "long": "integer",
    "bigInteger": "integer",
    "float": "float",
    "double": "float",
    "boolean": "boolean",
    "timestamp": "timestamp",
    "blob": "blob",
}
EMPTY: Mapping[str, Mapping[str, Any]] = {}
# The name of a type's document where botocore's form of the model has none (Smithy's has it as
# xmlName), as S3's own reference shows it.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
S3_DOCUMENTS: Mapping[str, str] = {
    "CompleteMultipartUploadOutput": "CompleteMultipartUploadResult",
    "CreateMultipartUploadOutput": "InitiateMultipartUploadResult",
    "DeleteObjectsOutput": "DeleteResult",
    "GetBucketAccelerateConfigurationOutput": "AccelerateConfiguration",
    "GetBucketAclOutput": "AccessControlPolicy",
    "GetBucketLoggingOutput": "BucketLoggingStatus",
    "GetBucketRequestPaymentOutput": "RequestPaymentConfiguration",
    "GetBucketTaggingOutput": "Tagging",
    "GetBucketVersioningOutput": "VersioningConfiguration",
    "GetObjectAclOutput": "AccessControlPolicy",
    "GetObjectAttributesOutput": "GetObjectAttributesResponse",
    "GetObjectTaggingOutput": "Tagging",
    "ListBucketAnalyticsConfigurationsOutput": "ListBucketAnalyticsConfigurationResult",
    "ListBucketInventoryConfigurationsOutput": "ListInventoryConfigurationsResult",
    "ListBucketMetricsConfigurationsOutput": "ListMetricsConfigurationsResult",
    "ListBucketsOutput": "ListAllMyBucketsResult",
    "ListMultipartUploadsOutput": "ListMultipartUploadsResult",
    "ListObjectVersionsOutput": "ListVersionsResult",
    "ListObjectsOutput": "ListBucketResult",
    "ListObjectsV2Output": "ListBucketResult",
    "ListPartsOutput": "ListPartsResult",
}
# Traits by service and type that botocore's form of the model lacks.
LACKING: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "s3": {name: {"locationName": root} for name, root in S3_DOCUMENTS.items()}
    | {"GetBucketLocationOutput": {"unwrapped": True}},  # Smithy: s3UnwrappedXmlOutput
}


@dataclass(slots=True, eq=False)
class Shape:
    """A type of the API where it is used."""

    name: str
    kind: Kind
    traits: Mapping[str, Any]
    fields: tuple[Field, ...] = ()
    by_name: dict[str, Field] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    item: Shape | None = None  # of a list; the values of a map
    key: Shape | None = None
    # Traits that every call asks for.
    wire: str | None = None  # locationName
    location: str | None = None  # uri, querystring, header, headers, statusCode
    flattened: bool = False
    payload: str | None = None
    unwrapped: bool = False  # as a document in XML: its root is its only member's value
    timestamp_format: str | None = None
    bits: int = 64  # of an integer
    plain: bool = False  # JSON has the same value: nothing to convert inside


@dataclass(slots=True, eq=False)
class Field:
    """A member of a structure; `wire` is its name in JSON and XML."""

    name: str
    wire: str
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Fault:
    """An error that the model declares."""

    name: str  # the type's name: boto3's exception class
    code: str  # what query services call it
    status: int | None
    members: Mapping[str, Shape]


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """One operation of the API."""

    name: str
    method: str
    uri: str
    status: int
    input: Shape | None
    output: Shape | None
    result_wrapper: str | None
    deprecated: bool

    @property
    def constants(self) -> dict[str, str]:
        """What the query must have to mean this operation; an empty value stands for any."""
        return dict(parse_qsl(self.uri.partition("?")[2], keep_blank_values=True))

    @property
    def streams(self) -> bool:
        """True when the request's payload is handed on as it arrives."""
        if self.input is None or self.input.payload is None:
            return False
        return bool(self.input.by_name[self.input.payload].shape.traits.get("streaming"))

    @property
    def parses_body(self) -> bool:
        """True when the request's body is a document, not a value as it is."""
        if self.input is None or self.input.payload is None:
            return True
        return self.input.by_name[self.input.payload].shape.kind not in ("blob", "string")


class Api:
    """One service's model; `more` are traits by type that it lacks."""

    def __init__(
        self, name: str, model: Mapping[str, Any], more: Mapping[str, Mapping[str, Any]] = EMPTY
    ) -> None:
        self.name = name
        self._more = more
        self.metadata: Mapping[str, Any] = model["metadata"]
        self.protocols: Sequence[str] = self.metadata.get("protocols") or [
            self.metadata["protocol"]
        ]
        self.signing_name: str = self.metadata.get("signingName", self.metadata["endpointPrefix"])
        self.target_prefix: str | None = self.metadata.get("targetPrefix")
        self.version: str = self.metadata["apiVersion"]
        self.namespace: str = self.metadata.get("xmlNamespace", "")
        self.operations: Mapping[str, Any] = model["operations"]
        self._shapes: Mapping[str, Any] = model["shapes"]
        self._made: dict[str, Shape] = {}
        self._actions: dict[str, Action] = {}
        self._faults: dict[str, Fault] | None = None

    def action(self, name: str) -> Action | None:
        """Return the operation, or None when the API has none of that name."""
        found = self._actions.get(name)
        if found is None and name in self.operations:
            found = self._actions[name] = self._action(name, self.operations[name])
        return found

    def fault(self, code: str) -> Fault | None:
        """Return the declared error whose type or code is `code`."""
        if self._faults is None:
            self._faults = {}
            for name, raw in self._shapes.items():
                if raw.get("exception"):
                    fault = self._fault(name, raw)
                    self._faults.setdefault(fault.code, fault)
                    self._faults[name] = fault
        return self._faults.get(code)

    def _fault(self, name: str, raw: Mapping[str, Any]) -> Fault:
        error = raw.get("error", {})
        members = {member: self._shape(ref) for member, ref in raw.get("members", {}).items()}
        return Fault(name, error.get("code", name), error.get("httpStatusCode"), members)

    def _action(self, name: str, raw: Mapping[str, Any]) -> Action:
        http = raw["http"]
        return Action(
            name=name,
            method=http["method"],
            uri=http["requestUri"],
            status=http.get("responseCode", 200),
            input=self._shape(raw["input"]) if "input" in raw else None,
            output=self._shape(raw["output"]) if "output" in raw else None,
            result_wrapper=raw.get("output", {}).get("resultWrapper"),
            deprecated=bool(raw.get("deprecated")),
        )

    def _shape(self, ref: Mapping[str, Any]) -> Shape:
        key = json.dumps({k: v for k, v in ref.items() if k != "documentation"}, sort_keys=True)
        made = self._made.get(key)
        if made is not None:
            return made
        raw = self._shapes[ref["shape"]]
        traits = {**raw, **self._more.get(ref["shape"], {}), **ref}
        kind: Kind = "document" if raw.get("document") else KINDS[raw["type"]]
        made = self._made[key] = Shape(
            name=ref["shape"],
            kind=kind,
            traits=traits,
            wire=traits.get("locationName"),
            location=traits.get("location"),
            flattened=bool(traits.get("flattened")),
            payload=traits.get("payload"),
            unwrapped=bool(traits.get("unwrapped")),
            timestamp_format=traits.get("timestampFormat"),
            bits=32 if raw["type"] == "integer" else 64,
            plain=kind in ("string", "integer", "boolean", "document"),
        )
        if kind == "structure":
            self._add_members(made, raw)
        elif kind == "list":
            made.item = self._shape(raw["member"])
            made.plain = made.item.plain
        elif kind == "map":
            made.key, made.item = self._shape(raw["key"]), self._shape(raw["value"])
            made.plain = made.item.plain
        return made

    def _add_members(self, made: Shape, raw: Mapping[str, Any]) -> None:
        fields = []
        for name, ref in raw.get("members", {}).items():
            shape = self._shape(ref)
            fields.append(Field(name, shape.wire or name, shape))
        made.fields = tuple(fields)
        made.by_name = {field.name: field for field in fields}
        made.required = tuple(raw.get("required", ()))


@cache
def api(service: str) -> Api:
    """Return the model of a service by its botocore name."""
    return Api(
        service, LOADER.load_service_model(service, "service-2"), LACKING.get(service, EMPTY)
    )
