"""Every way in which a hub can fail, and what is said of it."""

from __future__ import annotations

import shutil
import threading
import time
from typing import Any

import pytest

from cortex_embed.models.catalogue import CatalogueEntry, find
from tests.hub import REVISION, Hub, catalogue, repository
from tests.models.world import GRAPH, REPO, World


@pytest.mark.parametrize("path", [GRAPH, "config.json"])
def test_a_connection_that_is_cut_goes_on_where_it_was(world: World, path: str) -> None:
    size = len(world.hub.repositories[REPO][path])
    world.hub.trouble(path, "cut", after=size // 2, times=2)
    world.obtain().verify()
    assert "cut; trying again" in world.said
    assert world.hub.sent[path] == size
    ranges = [r.headers.get("Range") for r in world.hub.requests if r.method == "GET"]
    assert f"bytes={size // 2}-" in ranges


def test_what_an_earlier_attempt_brought_is_not_fetched_again(world: World) -> None:
    world.hub.trouble(GRAPH, "stall", after=40_000, times=1)
    world.fails("stalled", "1 s (--stall-timeout)", "goes on from there")
    world.obtain().verify()
    assert world.hub.sent[GRAPH] == len(world.hub.repositories[REPO][GRAPH])
    assert world.litter() == []


def test_a_server_that_knows_no_ranges_is_asked_for_all(world: World) -> None:
    world.hub.trouble(GRAPH, "cut", after=40_000, times=1)
    world.hub.trouble(GRAPH, "ignore_range", times=1)
    world.obtain().verify()


def test_a_part_that_is_too_long_is_begun_anew(world: World) -> None:
    place = world.root / ".partial" / f"tiny-hub@{REVISION[:12]}"
    place.mkdir(parents=True)
    (place / "model.onnx.part").write_bytes(b"x" * 10**6)
    world.obtain().verify()


@pytest.mark.parametrize(
    ("code", "trouble", "words"),
    [
        ("stalled", {"kind": "stall", "after": 10_000}, ("--stall-timeout",)),
        ("cut", {"kind": "cut", "after": 0}, ("again and again",)),
        ("server", {"status": 503}, ("HTTP 503", "status.huggingface.co")),
        ("rate_limited", {"status": 429}, ("HTTP 429", "HF_TOKEN")),
        ("unauthorized", {"status": 401}, ("HTTP 401", "HF_TOKEN")),
        ("gated", {"status": 403}, ("Accept its terms", f"https://huggingface.co/{REPO}")),
        (
            "gated",
            {"status": 401, "headers": {"X-Error-Code": "GatedRepo"}},
            ("Accept its terms", "HF_TOKEN"),
        ),
        ("not_found", {"status": 404}, ("HTTP 404", GRAPH)),
        ("answer", {"status": 418}, ("HTTP 418",)),
        ("wrong_size", {"kind": "longer"}, ("it must have",)),
        ("wrong_content", {"kind": "wrong"}, ("came twice", "not kept")),
    ],
)
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_every_fault_has_its_own_words(
    world: World, method: str, code: str, trouble: dict[str, Any], words: tuple[str, ...]
) -> None:
    given = {"kind": "status"} | trouble
    if method == "HEAD" and given["kind"] != "status":
        given["on"] = ("GET",)
    else:
        given["on"] = (method,)
    world.hub.trouble(GRAPH, **given)
    began = time.monotonic()
    world.fails(code, *words)
    assert time.monotonic() - began < 5
    assert not list(world.root.rglob("*.lock"))


def test_a_hub_that_stalls_before_it_answers(world: World) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as deaf:
        _point_at(world, f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        world.fails("stalled")
        assert 0.9 < time.monotonic() - began < 3


def _point_at(world: World, url: str) -> None:
    from huggingface_hub import constants

    constants.ENDPOINT = url  # undone by the fixture
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://no-such-host.invalid", "nonsense"])
def test_a_hub_that_is_not_there(world: World, url: str) -> None:
    _point_at(world, url)
    message = world.fails("unreachable", "HF_ENDPOINT")
    assert "Errno" not in message


def test_a_page_is_no_hub(world: World) -> None:
    """A hotel's network answers everything with a page: it must not pass for a config.json."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Hotel(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Hotel) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        _point_at(world, f"http://127.0.0.1:{server.server_port}")
        world.fails("answer", "is not a hub's", entry=world.entry(pinned=False))
        server.shutdown()


def test_a_wrong_revision_or_file_is_named(world: World) -> None:
    text = catalogue(world.base / "a.toml", world.hub).read_text()
    (world.base / "a.toml").write_text(text.replace(REVISION, "f" * 40))
    world.fails("not_found", "has no revision ffff", entry=find("th", world.base / "a.toml"))
    del world.hub.repositories[REPO]["tokenizer.json"]
    world.fails("not_found", "has no tokenizer.json at revision", entry=_entry(world))


def _entry(world: World) -> CatalogueEntry:
    complete = Hub.__new__(Hub)
    complete.repositories = {REPO: repository()}
    found = find("th", catalogue(world.base / "b.toml", complete))
    assert found is not None
    return found


def test_the_hubs_size_must_be_the_catalogues(world: World) -> None:
    world.hub.trouble(GRAPH, "size", on=("HEAD",))
    world.fails("wrong_size", "the catalogue says")
    assert world.hub.count("GET", GRAPH) == 0


def test_a_size_that_the_hub_gets_wrong_itself(world: World) -> None:
    world.hub.trouble(GRAPH, "size", on=("HEAD",))
    world.fails("wrong_size", "it must have", entry=world.entry(pinned=False))


def test_wrong_bytes_once_are_fetched_once_more(world: World) -> None:
    world.hub.trouble(GRAPH, "wrong", times=1)
    world.obtain().verify()
    assert "fetching it again" in world.said


@pytest.mark.parametrize("form", ["1", "date", "ratelimit"])
def test_the_hub_says_when_to_come_again(world: World, form: str) -> None:
    from email.utils import formatdate

    headers = {
        "1": {"Retry-After": "1"},
        "date": {"Retry-After": formatdate(time.time() + 2, usegmt=True)},
        "ratelimit": {"ratelimit": '"api";r=0;t=1'},
    }[form]
    world.hub.trouble(GRAPH, "status", status=429, headers=headers, times=1, on=("HEAD",))
    began = time.monotonic()
    world.obtain(stall_timeout=5.0).verify()
    assert 0.5 < time.monotonic() - began < 5


def test_nobody_waits_longer_than_the_bound(world: World) -> None:
    headers = {"Retry-After": "3600"}
    world.hub.trouble(GRAPH, "status", status=429, headers=headers, on=("HEAD",))
    began = time.monotonic()
    world.fails("rate_limited", "asks to wait 3600 s")
    assert time.monotonic() - began < 2


def test_failures_that_pass_are_not_counted_for_ever(world: World) -> None:
    """Each attempt that brings a megabyte makes up for the failed ones before it."""
    world.hub.repositories[REPO] = repository(rows=60_000)  # 7.7 MB
    world.hub.trouble(GRAPH, "cut", after=1_200_000, times=6)
    world.obtain().verify()


def test_a_token_goes_to_the_hub_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    world.hub.trouble(GRAPH, "cut", after=1000, times=1)
    world.obtain()
    sent = {(r.origin, "Authorization" in r.headers or "authorization" in r.headers)
            for r in world.hub.requests}  # fmt: skip
    assert sent == {("hub", True), ("storage", False)}
    assert "hf_secret" not in world.said
    shutil.rmtree(world.final)
    world.hub.trouble(GRAPH, "status", status=401)
    assert "hf_secret" not in world.fails("unauthorized")
