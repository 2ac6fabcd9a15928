from __future__ import annotations

import os
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest

from cortex_embed.commands import instances
from cortex_embed.commands.instances import Instance, Record, identity, probe, runtime_dir
from cortex_embed.config import Settings
from cortex_embed.errors import OutputError
from cortex_embed.models.artifact import Artifact
from cortex_embed.processes import started

posix = pytest.mark.skipif(sys.platform == "win32", reason="owners and modes")
RECORD = Record(os.getpid(), started(os.getpid()), "k.1.ready", "tiny", "fp32", "0")


def test_an_identity_is_what_the_answers_depend_on(
    tiny_mean: Artifact, tiny_cls: Artifact, tmp_path: Path
) -> None:
    def key(**more: object) -> str:
        return identity(replace(Settings(model=(str(tiny_mean.directory),)), **more)).key  # type: ignore[arg-type]

    assert key() == key(threads=3, port=1, max_batch_tokens=64, log_level="debug")
    assert key() == key(precision="auto")  # there is nothing else
    assert key() != key(model=(str(tiny_cls.directory),))
    assert key() != key(on_overlong="error")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(tiny_mean.directory)
    assert key() == key(model=(str(elsewhere),))


def test_a_version_is_part_of_the_identity(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model=(str(tiny_mean.directory),))
    before = identity(settings)
    monkeypatch.setattr("cortex_embed.__version__", "99.0.0")
    assert identity(settings).key != before.key
    assert str(before) == "tiny-mean (fp32)"


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    place = Instance(tmp_path, "0123456789abcdef")
    assert place.record() is None
    assert place.state() == ("gone", None)
    place.write(RECORD)
    assert place.record() == RECORD
    assert RECORD.alive
    assert place.state() == ("starting", None)
    assert instances.all_of(tmp_path) == [place]
    place.forget()
    assert list(tmp_path.iterdir()) == []


def test_a_pid_given_away_again_is_another_process() -> None:
    assert not replace(RECORD, started=RECORD.started - 1).alive


def test_a_record_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    place = Instance(tmp_path / "run", "0123456789abcdef")
    place.directory.mkdir()
    place.write(replace(RECORD, ready="../precious"))
    assert place.record() is None
    place.forget()
    assert (tmp_path / "precious").exists()


def test_one_starts_and_the_others_wait(tmp_path: Path) -> None:
    place = Instance(tmp_path, "k")
    order = []

    def second() -> None:
        with place.starting(time.monotonic() + 20):
            order.append("second")

    with place.starting(time.monotonic()):
        waiting = threading.Thread(target=second)
        waiting.start()
        with pytest.raises(TimeoutError), place.starting(time.monotonic() + 0.1):
            pass
        order.append("first")
    waiting.join(20)
    assert order == ["first", "second"]


@posix
def test_the_platforms_directory_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_runtime_dir", lambda *_, **__: "/proc/nowhere")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))
    found = runtime_dir(Settings())
    assert found == tmp_path / "cache" / "run"  # the first cannot be made
    assert found.stat().st_mode & 0o777 == 0o700


@posix
def test_no_place_at_all_names_each_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").touch()
    monkeypatch.setattr(platformdirs, "user_runtime_dir", lambda *_, **__: "/proc/nowhere")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    with pytest.raises(OutputError, match=r"/proc/nowhere cannot be used.*run.*--runtime-dir"):
        runtime_dir(Settings())


@posix
def test_a_place_that_is_not_private_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    link.symlink_to(private)
    with pytest.raises(OutputError, match="a link will not do"):
        runtime_dir(Settings(runtime_dir=link))
    assert runtime_dir(Settings(runtime_dir=private)) == private
    monkeypatch.setattr(os, "geteuid", lambda: private.stat().st_uid + 1)
    with pytest.raises(OutputError, match="belongs to user"):
        runtime_dir(Settings(runtime_dir=private))


def test_a_port_that_nobody_listens_on_is_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert probe({"host": "127.0.0.1", "port": port, "token": "t"}) == "gone"


def test_who_does_not_answer_in_time_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "_PROBE_LIMIT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        event = {"host": "127.0.0.1", "port": silent.getsockname()[1], "token": "t"}
        assert probe(event) == "busy"
