"""What libraries and child processes are told; the table itself is held by test_config.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cortex_embed import config


def test_a_servers_environment_is_ours_without_what_it_must_not_inherit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORTEX_EMBED_PORT", "1")
    monkeypatch.setenv("CORTEX_EMBED_THREADS", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/as/it/is")
    # It is the starter's readiness that the starter's manager waits for.
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/systemd/notify")
    given = config.child_environment({"CORTEX_EMBED_TOKEN": "t"}, without=["port"])
    assert given["CORTEX_EMBED_TOKEN"] == "t"
    assert given["CORTEX_EMBED_THREADS"] == "1"
    assert given["LD_LIBRARY_PATH"] == "/as/it/is"
    assert "CORTEX_EMBED_PORT" not in given
    assert "NOTIFY_SOCKET" not in given
    assert "PYINSTALLER_RESET_ENVIRONMENT" not in given


@pytest.mark.parametrize("original", [None, "/usr/local/lib"])
def test_a_frozen_program_starts_one_that_does_not_live_in_its_temp_directory(
    monkeypatch: pytest.MonkeyPatch, original: str | None
) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp/_MEI0000002aabcdef")  # noqa: S108
    monkeypatch.delenv("LD_LIBRARY_PATH_ORIG", raising=False)
    if original is not None:
        monkeypatch.setenv("LD_LIBRARY_PATH_ORIG", original)
    given = config.child_environment({})
    assert given["PYINSTALLER_RESET_ENVIRONMENT"] == "1"
    assert given.get("LD_LIBRARY_PATH") == original
    assert "LD_LIBRARY_PATH_ORIG" not in given


@pytest.mark.parametrize(
    ("said", "offline"), [("1", True), ("yes", True), ("0", False), ("", False)]
)
def test_offline_for_hugging_face_is_offline_for_us(
    monkeypatch: pytest.MonkeyPatch, said: str, offline: bool
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", said)
    assert config.load({}).offline is offline
    assert config.load({"offline": "false"}).offline is False
    assert config.load({"offline": "true"}).offline is True


def test_the_hubs_library_reports_nothing_and_needs_no_xet() -> None:
    """In a process of its own: the library reads the environment once, when it is imported."""
    code = (
        "from cortex_embed.config import prepare_hub_environment\n"
        "prepare_hub_environment()\n"
        "from huggingface_hub import constants as c\n"
        "print(c.HF_HUB_DISABLE_TELEMETRY, c.HF_HUB_DISABLE_XET, c.HF_HUB_OFFLINE, c.ENDPOINT)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=config.child_environment({"HF_ENDPOINT": "http://mine/", "HF_HUB_OFFLINE": "1"}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["True", "True", "False", "http://mine"]
