"""From a catalogue entry to a verified artifact, by the real client and a hub that can fail."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from cortex_embed.errors import DownloadError, EmbedError
from cortex_embed.models.artifact import Artifact, load_artifact
from cortex_embed.models.catalogue import CatalogueEntry, find
from cortex_embed.models.fingerprint import fingerprint
from cortex_embed.models.obtain import obtain
from tests.hub import REVISION, catalogue, repository
from tests.models.world import GRAPH, REPO, Listener, World


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
