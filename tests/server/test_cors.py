"""Which pages may use the server: over real HTTP, as browsers ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cortex_embed.server.cors import Cors

if TYPE_CHECKING:
    import aiohttp

    from tests.server.conftest import Running, Start

APP = "https://app.example"
OTHER = "https://evil.example"
ALLOW = "Access-Control-Allow-Origin"
PRIVATE = "Access-Control-Allow-Private-Network"


async def preflight(running: Running, path: str = "/embed", **headers: str) -> Any:
    asked = {"Access-Control-Request-Method": "POST"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with running.http.options(path, headers=asked) as reply:
        assert await reply.read() == b"" or reply.status != 204
        return reply


def varies(reply: aiohttp.ClientResponse) -> bool:
    return "Origin" in ", ".join(reply.headers.getall("Vary", []))


async def test_off_by_default(running: Running) -> None:
    reply = await preflight(running, Origin="http://localhost:3000")
    assert reply.status == 405
    for origin in ("http://localhost:3000", None):
        headers = {"Origin": origin} if origin else {}
        answered, _ = await running.post("/embed", {"texts": ["a"]}, headers=headers)
        assert answered.status == 200
        assert ALLOW not in answered.headers
        assert not varies(answered)


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/nothing", "/metrics"])
async def test_a_preflight_needs_no_key(start: Start, path: str) -> None:
    async with start(cors_origins=(APP, "http://localhost:3000"), token="secret") as running:
        reply = await preflight(running, path, Origin=APP, Access_Control_Request_Headers="api-key")
        assert reply.status == 204
        assert reply.headers[ALLOW] == APP
        assert varies(reply)
        assert "POST" in reply.headers["Access-Control-Allow-Methods"]
        allowed = reply.headers["Access-Control-Allow-Headers"].lower().split(", ")
        wanted = {"authorization", "content-type", "api-key", "x-api-key", "traceparent"}
        assert wanted | {"x-request-id", "if-embedding-fingerprint"} == set(allowed)
        assert int(reply.headers["Access-Control-Max-Age"]) > 0
        assert PRIVATE not in reply.headers
        assert "Access-Control-Allow-Credentials" not in reply.headers


async def test_answers_and_errors_can_be_read_by_listed_pages_only(start: Start) -> None:
    async with start(cors_origins=(APP,), token="secret") as running:
        key = {"Authorization": "Bearer secret"}
        for headers, body, status in [
            ({**key, "Origin": APP}, {"texts": ["a"]}, 200),
            ({**key, "Origin": APP}, {"texts": []}, 400),
            ({"Origin": APP}, {"texts": ["a"]}, 401),
        ]:
            reply, _ = await running.post("/embed", body, headers=headers)
            assert reply.status == status
            assert reply.headers[ALLOW] == APP
            assert varies(reply)
            exposed = reply.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"X-Request-Id", "X-Truncated", "X-Truncated-Indices", "Retry-After"} < {
                *exposed
            }
            assert {"X-Phase", "X-Embedding-Fingerprint"} < {*exposed}
        refused, _ = await running.post("/embed", {}, headers={**key, "Origin": OTHER})
        assert refused.status == 403
        assert ALLOW not in refused.headers
        assert varies(refused)
        # A page on this machine may ask, as ever; unlisted, its script cannot read the answer.
        local, _ = await running.post(
            "/embed", {"texts": ["a"]}, headers={**key, "Origin": "http://localhost:9"}
        )
        assert local.status == 200
        assert ALLOW not in local.headers
        plain, _ = await running.post("/embed", {"texts": ["a"]}, headers=key)
        assert varies(plain)


async def test_a_preflight_of_others_is_refused(start: Start) -> None:
    async with start(cors_origins=(APP,)) as running:
        for origin in (OTHER, "null", APP + ":444", APP.replace("https", "http"), APP + "."):
            reply = await preflight(running, Origin=origin)
            assert reply.status == 403, origin
            assert ALLOW not in reply.headers
        rebound = await preflight(running, Origin=APP, Host="evil.example")
        assert rebound.status == 403


async def test_no_preflight_without_its_header(start: Start) -> None:
    async with (
        start(cors_origins=(APP,)) as running,
        running.http.options("/embed", headers={"Origin": APP}) as reply,
    ):
        assert reply.status == 405
        assert reply.headers[ALLOW] == APP


async def test_all_origins_but_null(start: Start) -> None:
    async with start(cors_origins=("*",)) as running:
        reply = await preflight(running, Origin=OTHER)
        assert (reply.status, reply.headers[ALLOW]) == (204, OTHER)
        answered, _ = await running.post("/embed", {"texts": ["a"]}, headers={"Origin": OTHER})
        assert (answered.status, answered.headers[ALLOW]) == (200, OTHER)
        null, _ = await running.post("/embed", {"texts": ["a"]}, headers={"Origin": "null"})
        assert null.status == 403
        assert ALLOW not in null.headers


async def test_private_networks_open_to_named_origins_only(start: Start) -> None:
    asks = {"Access-Control-Request-Private-Network": "true"}
    async with start(cors_origins=("*", APP)) as running:
        named = await preflight(running, Origin=APP, **asks)
        assert named.headers[PRIVATE] == "true"
        unnamed = await preflight(running, Origin=OTHER, **asks)
        assert unnamed.status == 204
        assert PRIVATE not in unnamed.headers


@pytest.mark.parametrize("origins", [(), (APP,), ("*",)])
@pytest.mark.parametrize(
    "origin", ["null", "NULL", "", "*", "garbage", "https://", "https://\udcff"]
)
def test_what_is_no_origin_is_never_allowed(origins: tuple[str, ...], origin: str) -> None:
    assert not Cors(origins).allows(origin)


@pytest.mark.parametrize(
    "origin", ["tauri://localhost", "chrome-extension://abc", "http://[::1]:3"]
)
def test_all_means_every_scheme(origin: str) -> None:
    assert Cors(("*",)).allows(origin)
    assert Cors((origin,)).allows(origin)
    assert not Cors((APP,)).allows(origin)


async def test_an_origin_that_no_header_can_carry_back(start: Start) -> None:
    async with start(cors_origins=("*",)) as running:
        reader, writer = await running.raw()
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://a\xff\r\n\r\n")
        assert b" 403 " in await reader.readline()
        writer.close()
