"""The protocol's lines, the schema that is made from it, and the ready file."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import docs  # build/docs.py
from cortex_embed import __version__
from cortex_embed.commands.sidecar_schema import SCHEMA
from cortex_embed.errors import BindError, ModelFileError, OutputError
from cortex_embed.outlet import Outlet
from cortex_embed.server.events import EVENTS, HostReporter, ReadyFile
from cortex_embed.server.reporter import STOP_REASONS
from cortex_embed.server.sockets import Listener
from cortex_embed.service import ServedModel
from tests.events_schema import checked
from tests.server.conftest import SPEC

MODEL = ServedModel(SPEC, 0, {"precision": "int8"})
LISTENER = Listener((), "127.0.0.1", 8121)


@pytest.fixture
def ends() -> Iterator[tuple[int, Outlet]]:
    reading, writing = os.pipe()
    yield reading, Outlet(writing)
    os.close(reading)
    os.close(writing)


def received(reading: int, outlet: Outlet) -> list[dict[str, object]]:
    assert outlet.settle(5)
    return [checked(line) for line in os.read(reading, 65536).decode().splitlines()]


def test_a_whole_life(ends: tuple[int, Outlet]) -> None:
    report = HostReporter([ends[1]])
    report.listening(LISTENER, "secret")
    report.loading(MODEL)
    report.ready(MODEL, 0.1)
    report.draining(3, "stdin")
    report.stopped()
    reach = {
        "url": "http://127.0.0.1:8121",
        "host": "127.0.0.1",
        "port": 8121,
        "pid": os.getpid(),
        "version": __version__,
        "token": "secret",
    }
    about = {"model": "tiny", "dimensions": 8, "max_tokens": 16, "precision": "int8"}
    assert received(*ends) == [
        {"event": "listening", "v": 1, **reach},
        {"event": "progress", "v": 1, "phase": "load", "model": "tiny"},
        {"event": "ready", "v": 1, **reach, **about},
        {"event": "draining", "v": 1, "in_flight": 3, "reason": "stdin"},
    ]


def test_what_does_not_apply_is_left_out_and_a_socket_is_told(ends: tuple[int, Outlet]) -> None:
    HostReporter([ends[1]]).listening(Listener((), "localhost", 0, Path("/run/e")), None)
    (event,) = received(*ends)
    assert "token" not in event
    assert (event["uds"], event["url"], event["port"]) == ("/run/e", "http://localhost", 0)


@pytest.mark.parametrize(
    "error", [BindError("port 1 is in use"), ModelFileError("dämaged\n\u2028")]
)
def test_a_failure_has_code_message_and_exit_code(
    ends: tuple[int, Outlet], error: BindError | ModelFileError
) -> None:
    HostReporter([ends[1]]).failed(error)
    (event,) = received(*ends)
    assert (event["code"], event["message"]) == (error.code, error.message)
    assert event["exit_code"] == error.exit_code


def test_the_schema_is_made_from_the_types() -> None:
    assert docs.event_schema() == SCHEMA.read_text(encoding="utf-8"), "run `nox -s docs`"
    schema = json.loads(docs.event_schema())
    assert [one["$ref"].rpartition("/")[2] for one in schema["oneOf"]] == [
        event.__name__ for event in EVENTS
    ]
    reasons = schema["$defs"]["Draining"]["properties"]["reason"]["enum"]
    assert sorted(reasons) == sorted(STOP_REASONS)


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        '{"event": "listening"}',
        '{"event": "progress", "v": 2, "phase": "load", "model": "m"}',
        '{"event": "progress", "v": 1, "phase": "nap", "model": "m"}',
        '{"event": "progress", "v": 1, "phase": "load", "model": 5}',
        '{"event": "progress", "v": 1, "phase": "load", "model": "m", "more": 1}',
    ],
)
def test_the_check_of_the_tests_refuses_what_is_no_event(line: str) -> None:
    with pytest.raises(AssertionError, match="none of the events"):
        checked(line)


def test_the_ready_file_lives_as_long_as_the_service(tmp_path: Path) -> None:
    place = tmp_path / "ready.json"
    place.write_text("of an earlier, killed server")
    report = HostReporter([])
    report.ready_file = ReadyFile(place)
    assert list(tmp_path.iterdir()) == []
    report.listening(LISTENER, "secret")
    report.ready(MODEL, 0.1)
    assert checked(place.read_text())["token"] == "secret"
    if sys.platform != "win32":
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
    report.draining(0, "signal")
    assert list(tmp_path.iterdir()) == []
    report.stopped()


def test_another_servers_ready_file_is_not_removed(tmp_path: Path) -> None:
    file = ReadyFile(tmp_path / "ready.json")
    file.write("ours\n")
    (tmp_path / "ready.json").write_text("theirs\n")
    file.remove()
    assert (tmp_path / "ready.json").read_text() == "theirs\n"


def test_a_place_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--ready-file"):
        ReadyFile(tmp_path / "none" / "ready.json")
    with pytest.raises(OutputError, match="--ready-file"):
        ReadyFile(tmp_path)  # a directory is not removed
    assert tmp_path.is_dir()


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "ready.json"
    place.parent.mkdir()
    report = HostReporter([])
    report.ready_file = ReadyFile(place)
    place.parent.rmdir()
    report.listening(LISTENER, None)
    with pytest.raises(OutputError, match="cannot be written"):
        report.ready(MODEL, 0.1)


def test_the_fingerprint_is_told_where_there_is_one(ends: tuple[int, Outlet]) -> None:
    report = HostReporter([ends[1]])
    report.listening(LISTENER, None, keyed=True)
    report.ready(ServedModel(SPEC, 0, fingerprint="cx1:a"), 0.1)
    listening, ready = received(*ends)
    assert "token" not in listening
    assert ready["fingerprint"] == "cx1:a"
