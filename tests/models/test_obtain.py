"""From a catalogue entry to a verified artifact, by the real client and a hub that can fail."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cortex_embed.errors import DownloadError, EmbedError
from cortex_embed.models import hub as hub_module
from cortex_embed.models.artifact import Artifact, load_artifact
from cortex_embed.models.catalogue import CatalogueEntry, find
from cortex_embed.models.fingerprint import fingerprint
from cortex_embed.models.obtain import Progress, obtain
from tests.hub import REVISION, Hub, catalogue, repository, running

REPO = "cortex-embed/tiny"
GRAPH = "onnx/model.onnx"


@dataclass
class Listener:
    lines: list[str] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    on_step: Callable[[], None] = lambda: None

    def said(self, line: str) -> None:
        self.lines.append(line)

    def progressed(self, progress: Progress) -> None:
        self.steps.append(progress)
        self.on_step()

    def __contains__(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@dataclass
class World:
    """A hub, an empty data directory, an empty cache of Hugging Face's, no pauses."""

    hub: Hub
    base: Path
    said: Listener = field(default_factory=Listener)

    @property
    def root(self) -> Path:
        return self.base / "data"

    @property
    def final(self) -> Path:
        return self.root / "tiny-hub"

    def entry(self, **how: Any) -> CatalogueEntry:
        found = find("tiny-hub", catalogue(self.base / "mine.toml", self.hub, **how))
        assert found is not None
        return found

    def obtain(self, entry: CatalogueEntry | None = None, **how: Any) -> Artifact:
        given = {"offline": False, "stall_timeout": 1.0, "accept_terms": False} | how
        return obtain(entry or self.entry(), self.root, report=self.said, **given)

    def fails(self, code: str, *words: str, entry: CatalogueEntry | None = None, **how: Any) -> str:
        with pytest.raises(DownloadError) as caught:
            self.obtain(entry, **how)
        assert caught.value.code == f"download_{code}"
        assert caught.value.exit_code == 10
        for one in words:
            assert one in caught.value.message
        assert not self.final.exists()
        return caught.value.message

    def litter(self) -> list[str]:
        return [str(p.relative_to(self.root)) for p in self.root.rglob("*") if p != self.final
                and self.final not in p.parents]  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    from huggingface_hub import constants

    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(hub_module, "_PAUSES", (0.01, 0.02, 0.03))
    with running() as hub:
        hub.repositories[REPO] = repository()
        # Read from HF_ENDPOINT and HF_HOME once, when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        yield World(hub, tmp_path)


def test_a_model_is_fetched_once_and_verified(world: World) -> None:
    artifact = world.obtain()
    artifact.verify()
    assert artifact.directory == world.final
    assert artifact.spec.id == "tiny-hub"
    assert not artifact.is_own
    assert sorted(p.name for p in world.final.iterdir()) == [
        "config.json", "manifest.json", "model.onnx", "tokenizer.json"
    ]  # fmt: skip
    assert world.litter() == []
    assert "Licence: mit" in world.said
    last = world.said.steps[-1]
    files = world.hub.repositories[REPO].values()
    assert (last.phase, last.done) == ("verify", sum(map(len, files)))
    assert last.total == last.done
    world.hub.requests.clear()
    assert world.obtain() == artifact
    assert world.hub.requests == []


def test_weights_beside_the_graph_are_beside_it(world: World) -> None:
    world.hub.repositories[REPO] = repository(external=True)
    artifact = world.obtain()
    assert (artifact.directory / "model.onnx_data").stat().st_size == 600 * 128
    # What is not named cannot be run.
    shutil.rmtree(world.final)
    text = (world.base / "mine.toml").read_text().replace(', "onnx/model.onnx_data"', "")
    (world.base / "mine.toml").write_text(text)
    with pytest.raises(EmbedError, match=r"model\.onnx reads model\.onnx_data beside it"):
        world.obtain(find("tiny-hub", world.base / "mine.toml"))


def test_a_tokenizer_in_a_folder_lies_where_it_is_looked_for(world: World) -> None:
    files = world.hub.repositories[REPO]
    files["onnx/tokenizer.json"] = files.pop("tokenizer.json")
    text = 'tokenizer = "onnx/tokenizer.json"'
    found = world.entry(extra=text)
    entry = CatalogueEntry(**{
        name: getattr(found, name) for name in CatalogueEntry.__struct_fields__
    } | {"onnx": (GRAPH,)})  # fmt: skip
    assert world.obtain(entry).tokenizer.read_bytes() == files["onnx/tokenizer.json"]


def test_an_unpinned_file_is_trusted_once_and_remembered(world: World) -> None:
    entry = world.entry(pinned=False)
    artifact = world.obtain(entry)
    seen = hashlib.sha256(world.hub.repositories[REPO]["config.json"]).hexdigest()
    assert f"trusted on first use, and recorded: SHA-256 {seen}" in world.said
    assert artifact.sources["config.json"] == seen
    # Content that changes later, at the same revision, is not taken.
    (world.final / "config.json").write_text("damaged")
    world.hub.repositories[REPO]["config.json"] += b" "
    with pytest.raises(DownloadError, match="came twice with SHA-256") as caught:
        world.obtain(entry)
    assert seen in caught.value.message
    assert load_artifact(world.final) == artifact


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "tokenizer.json"])
def test_a_broken_file_is_found_and_fetched_again_alone(world: World, name: str) -> None:
    intact = world.obtain()
    (world.final / name).write_bytes(b"x" + (world.final / name).read_bytes()[1:])
    world.hub.requests.clear()
    assert world.obtain() == intact
    load_artifact(world.final).verify()
    assert world.litter() == []
    asked = {r.path.rpartition("/")[2] for r in world.hub.requests}
    assert asked == (set() if name == "manifest.json" else {name})


def test_a_correction_of_the_catalogue_reaches_what_is_installed(world: World) -> None:
    before = world.obtain()
    text = (world.base / "mine.toml").read_text().replace('"query: "', '"ask: "')
    (world.base / "own.toml").write_text(text)
    world.hub.requests.clear()
    after = world.obtain(find("tiny-hub", world.base / "own.toml"))
    assert after.spec.query_prefix == "ask: "
    assert fingerprint(before, "fp32") != fingerprint(after, "fp32")
    assert world.hub.requests == []


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


def test_offline_asks_nobody_and_says_what_is_missing(world: World) -> None:
    world.fails("offline", GRAPH, "tokenizer.json", "--offline", offline=True)
    assert world.hub.requests == []
    assert world.litter() == []


def test_terms_are_accepted_before_anything_is_fetched(world: World) -> None:
    entry = world.entry(extra='terms = "the house rules, https://example.org"')
    world.fails("terms", "the house rules", "--accept-terms", entry=entry)
    assert world.hub.requests == []
    world.obtain(entry, accept_terms=True)
    assert "the house rules" in world.said
    world.obtain(entry)


def _into_cache(world: World, name: str, content: bytes) -> Path:
    repo = world.base / "cache" / "models--cortex-embed--tiny"
    blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
    link = repo / "snapshots" / REVISION / name
    for path in (blob, link):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link.symlink_to(blob)
    return blob


def test_hugging_faces_cache_is_enough(world: World) -> None:
    blobs = [_into_cache(world, n, c) for n, c in world.hub.repositories[REPO].items()]
    world.obtain(offline=True).verify()
    assert world.hub.requests == []
    assert "found in Hugging Face's cache" in world.said
    assert all(blob.stat().st_nlink == 2 for blob in blobs)  # linked, not copied
    assert world.litter() == []


def test_a_cached_file_that_is_damaged_is_fetched(world: World) -> None:
    for name, content in world.hub.repositories[REPO].items():
        _into_cache(world, name, content if name == GRAPH else b"{}")
    world.obtain().verify()
    assert "is not what it should be" in world.said
    assert world.hub.count("GET", GRAPH) == 0


def test_a_cache_on_another_disk_is_copied(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in world.hub.repositories[REPO].items():
        _into_cache(world, name, content)

    def another_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", another_disk)
    world.obtain(offline=True).verify()
    assert world.litter() == []


def test_two_at_a_time_fetch_once(world: World) -> None:
    world.hub.trouble(GRAPH, "slow")
    entry, listeners = world.entry(), [Listener(), Listener()]
    found: list[Artifact] = []

    def work(listener: Listener) -> None:
        how: Any = {"offline": False, "stall_timeout": 5.0, "accept_terms": False}
        found.append(obtain(entry, world.root, report=listener, **how))

    threads = [threading.Thread(target=work, args=(one,)) for one in listeners]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert found[0] == found[1]
    assert world.hub.count("HEAD", f"resolve/{REVISION}/{GRAPH}") == 1
    (waited,) = [line for one in listeners for line in one.lines if "waiting for it" in line]
    # Who holds a lock is written just after it is taken.
    assert f"process {os.getpid()}" in waited or "another process" in waited


def test_a_disk_that_is_too_small_is_known_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    world.fails("disk_full", "the download needs", str(world.root))
    assert world.hub.count("GET", GRAPH) == 0


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.ENOSPC, "disk_full"), (errno.EROFS, "read_only"), (errno.EIO, "write")],
)
def test_a_disk_that_fails_on_the_way(world: World, number: int, code: str) -> None:
    def fail() -> None:
        raise OSError(number, os.strerror(number), str(world.root / "x"))

    world.said.on_step = fail
    world.fails(code, str(world.root))
    world.said.on_step = lambda: None
    world.obtain().verify()
    assert world.litter() == []


def test_what_was_killed_between_two_renames_is_put_back(world: World) -> None:
    intact = world.obtain()
    old = world.root / ".partial" / "tiny-hub@old"
    old.parent.mkdir()
    world.final.rename(old)
    world.hub.requests.clear()
    assert world.obtain() == intact
    assert world.hub.requests == []
    assert world.litter() == []


def test_a_new_revision_takes_the_place_of_the_old_one(world: World) -> None:
    world.obtain()
    text = (world.base / "mine.toml").read_text()
    changed = catalogue(world.base / "new.toml", world.hub).read_text()
    assert text == changed
    (world.final / "manifest.json").write_text(
        (world.final / "manifest.json").read_text().replace(REVISION, "e" * 40)
    )
    assert world.obtain().spec.revision == REVISION
    assert world.litter() == []
