from __future__ import annotations

import asyncio
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cortex_embed.server.guard import PROBES
from cortex_embed.server.openapi import EVERYWHERE, document, example
from cortex_embed.server.route import NDJSON, Operation, Route
from cortex_embed.server.routes import ROUTES
from cortex_embed.wire import native, openai

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.server.conftest import Running

LISTED = [route for route in ROUTES if route.operation is not None and route.method != "HEAD"]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from references(inner)


def operations(described: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for item in described["paths"].values() for one in item.values()]


async def handle(_request: Any) -> Any:
    raise NotImplementedError


def row(operation: Operation, path: str = "/x", dialect: Any = native) -> Route:
    return Route("POST", path, dialect, handle, operation)


async def test_it_is_served_with_the_served_model(running: Running) -> None:
    replies = await asyncio.gather(*(running.get("/openapi.json") for _ in range(3)))
    assert {reply.status for reply, _ in replies} == {200}
    assert replies[0][0].content_type == "application/json"
    assert len({body for _, body in replies}) == 1
    found = json.loads(replies[0][1])
    assert found["openapi"].startswith("3.1.")
    body = found["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]
    assert body["example"] == {"model": "tiny", "input": ["hello", "world"]}


def test_every_row_is_there_once() -> None:
    described = document(ROUTES, "tiny")
    found = operations(described)
    assert len(found) == len(LISTED)
    identifiers = [one["operationId"] for one in found]
    assert len(set(identifiers)) == len(identifiers)
    assert "openai_post_v1_embeddings" in identifiers
    (in_path,) = described["paths"]["/v1/models/{id}"]["get"]["parameters"]
    assert (in_path["name"], in_path["in"], in_path["required"]) == ("id", "path", True)
    (in_query,) = described["paths"]["/model_info"]["get"]["parameters"]
    assert (in_query["name"], in_query["in"], in_query["required"]) == ("model", "query", False)
    assert in_query["description"]
    assert {tag["name"] for tag in described["tags"]} == {r.dialect.NAME for r in LISTED}


def test_every_reference_resolves() -> None:
    described = document(ROUTES, "tiny")
    for reference in set(references(described)):
        node = described
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        assert node
    used = {one.rpartition("/")[2] for one in references(described)}
    assert set(described["components"]["schemas"]) <= used


def test_every_status_of_a_row_has_its_dialects_error() -> None:
    paths = document(ROUTES, "tiny")["paths"]
    for route in LISTED:
        assert route.operation is not None
        found = paths[re.sub(r":[^}]*\}", "}", route.path)][route.method.lower()]["responses"]
        always = set(EVERYWHERE) - ({401} if route.path in PROBES else set())
        statuses = {200, *route.operation.errors, *route.operation.others, *always}
        assert {int(status) for status in found} == statuses
        for status in set(route.operation.errors) - set(route.operation.others):
            (media,) = found[str(status)]["content"]
            assert media == "application/json"
    schema = paths["/v1/embeddings"]["post"]["responses"]["429"]
    assert schema["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")
    assert "Retry-After" in schema["headers"]
    ready = paths["/readyz"]["get"]
    assert ready["responses"]["503"]["content"]["application/json"]["schema"]["$ref"].endswith(
        "/Phase"
    )
    assert ready["security"] == []


@pytest.mark.parametrize("kind", [native.EmbedBody, openai.EmbeddingsRequest])
def test_what_is_optional_may_be_null(kind: type[msgspec.Struct]) -> None:
    schema = document(ROUTES, "tiny")["components"]["schemas"][kind.__name__]
    optional = set(schema["properties"]) - set(schema["required"])
    assert optional
    for name in optional:
        kinds = schema["properties"][name].get("anyOf") or [schema["properties"][name]]
        accepted = [one.get("type") for one in kinds] + [
            x for k in kinds for x in k.get("enum", ())
        ]
        assert "null" in accepted or None in accepted, name
    assert schema["description"].startswith("Body of POST")


def test_two_types_of_one_name_stay_two() -> None:
    one = msgspec.defstruct("Clash", [("a", int)], module="one")
    other = msgspec.defstruct("Clash", [("b", str)], module="other")
    rows = [row(Operation("1", one, one), "/1"), row(Operation("2", other, other), "/2")]
    described = document(rows, "tiny")
    first, second = [
        described["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for path in ("/1", "/2")
    ]
    assert first != second
    schemas = described["components"]["schemas"]
    assert list(schemas[first["$ref"].rpartition("/")[2]]["properties"]) == ["a"]
    assert list(schemas[second["$ref"].rpartition("/")[2]]["properties"]) == ["b"]


def test_a_path_of_two_dialects_is_any_of_both() -> None:
    both = Operation(
        "shared",
        native.EmbedBody | openai.EmbeddingsRequest,
        list[list[float]] | native.EmbedReply,
        errors=(400,),
        also=(openai,),
    )
    found = document([row(both)], "tiny")["paths"]["/x"]["post"]
    body = found["requestBody"]["content"]["application/json"]["schema"]
    assert [one["$ref"].rpartition("/")[2] for one in body["anyOf"]] == [
        "EmbedBody",
        "EmbeddingsRequest",
    ]
    error = found["responses"]["400"]["content"]["application/json"]["schema"]
    assert [one["$ref"].rpartition("/")[2] for one in error["anyOf"]] == [
        "NativeError",
        "ErrorReply",
    ]


def test_no_body_and_other_media() -> None:
    empty = Operation("empty", others={503: None})
    lines = Operation("lines", native.EmbedBody, native.Phase, media=NDJSON)
    found = document([row(empty, "/e"), row(lines, "/l")], "tiny")["paths"]
    assert "content" not in found["/e"]["post"]["responses"]["200"]
    assert "content" not in found["/e"]["post"]["responses"]["503"]
    assert "requestBody" not in found["/e"]["post"]
    assert list(found["/l"]["post"]["responses"]["200"]["content"]) == [NDJSON]


def test_the_model_stands_in_for_its_name_only() -> None:
    one = Operation("x", example={"model": "MODEL", "a": ["MODEL", "the MODEL", 1]})
    assert example(one, "tiny") == {"model": "tiny", "a": ["tiny", "the MODEL", 1]}
    assert one.example["model"] == "MODEL"
