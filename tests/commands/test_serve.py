"""What is said and done before the server runs; the rest is in tests/e2e."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cortex_embed.commands import serve
from cortex_embed.config import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.store import Artifact


def test_a_missing_model_fails_before_anything_is_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("socket.socket.bind", lambda *_: pytest.fail("bound a socket"))
    assert serve.run(Settings(model=(str(tmp_path / "none"),), port=0)) == 3
    assert "is no artifact directory" in capsys.readouterr().err


def test_an_address_that_is_not_ours_is_named(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    # 192.0.2.0/24 is reserved for documentation (RFC 5737): nobody's address.
    settings = Settings(model=(str(tiny_mean.directory),), host="192.0.2.1", port=0)
    assert serve.run(settings) == 4
    assert "192.0.2.1 is not an address of this machine" in capsys.readouterr().err


def test_signal_handlers_come_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    serve.run(Settings(model=(str(tmp_path / "none"),), port=0))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("name", ["UNSET_TOKEN", "EMPTY_TOKEN", "ODD_TOKEN"])
def test_a_token_that_cannot_be_used_is_named_and_not_shown(
    name: str,
    tiny_mean: Artifact,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("EMPTY_TOKEN", "")
    monkeypatch.setenv("ODD_TOKEN", "geheim ä")
    settings = Settings(model=(str(tiny_mean.directory),), port=0, token_env=name)
    assert serve.run(settings) == 2
    said = capsys.readouterr().err
    assert name in said
    assert "geheim" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX descriptors")
def test_a_descriptor_that_is_not_open_is_named(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(model=(str(tiny_mean.directory),), port=0, ready_fd=65_000)
    assert serve.run(settings) == 2
    assert "--ready-fd 65000 is not open" in capsys.readouterr().err


def test_a_ready_file_that_cannot_be_made_is_known_before_anything_is_bound(
    tiny_mean: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "none" / "ready.json"
    settings = Settings(model=(str(tiny_mean.directory),), port=0, ready_file=place)
    assert serve.run(settings) == 6
    assert str(place) in capsys.readouterr().err


def test_what_is_ours_to_explain_is_told_to_the_host(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected failure is an event too, and a traceback for whoever repairs it."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("cortex_embed.composition.locate_model", broken)
    reading, writing = os.pipe()
    with os.fdopen(reading) as events, os.fdopen(writing, "w"):
        settings = Settings(model=(str(tiny_mean.directory),), ready_fd=writing)
        assert serve.run(settings) == 1
        event = json.loads(events.readline())
    assert (event["event"], event["code"], event["exit_code"]) == ("error", "internal_error", 1)
    assert "ZeroDivisionError" in event["message"]
    assert "Traceback" in capsys.readouterr().err


def test_nothing_that_costs_is_imported_before_the_port_is_announced(tiny_mean: Artifact) -> None:
    code = (
        "import sys\n"
        "from cortex_embed.commands import serve\n"
        "from cortex_embed.config import Settings\n"
        "from cortex_embed import logs\n"
        "def listening(*_, **__):\n"
        "    print(*{name.partition('.')[0] for name in sys.modules})\n"
        "    raise SystemExit\n"
        "logs.Reporter.listening = listening\n"
        f"serve.run(Settings(model=({str(tiny_mean.directory)!r},), port=0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(done.stdout.split())
    assert "cortex_embed" in loaded
    # Not msgspec: its import (3 ms) is won back by the classes that are made with it.
    costly = {"asyncio", "aiohttp", "numpy", "onnxruntime", "tokenizers", "logging"}
    assert not loaded & (costly | {"platformdirs", "secrets", "concurrent"})


@pytest.mark.parametrize("host_is_gone", [True, False])
def test_stumbling_over_what_the_watch_takes_away_is_no_failure(host_is_gone: bool) -> None:
    """A host that goes right after `listening`: the socket is closed while the server is made."""
    code = (
        "from cortex_embed.commands import serve\n"
        "from cortex_embed.config import Settings\n"
        "def stumble(_settings, _report, watch, _early):\n"
        "    watch.at_exit(lambda: print('cleaned', flush=True))\n"
        f"    watch._orphaned_by = {'stdin' if host_is_gone else ''!r}\n"
        "    raise OSError(9, 'Bad file descriptor')\n"
        "serve._serve = stumble\n"
        "raise SystemExit(serve.run(Settings()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    if host_is_gone:
        assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned\n", "")
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert "OSError: [Errno 9] Bad file descriptor" in done.stderr
