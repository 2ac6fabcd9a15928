"""What of a command line a service manager is given: checked, absolute, without secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortex_embed.config import NOT_FOR_A_SERVICE, rows
from cortex_embed.errors import UsageError
from cortex_embed.managers.job import Job
from cortex_embed.models.artifact import Artifact
from tests.managers.conftest import PROGRAM, make_job


def flags_of(job: Job) -> dict[str, str]:
    return dict(job.flags)


def test_nothing_asked_for_is_serve_with_its_defaults() -> None:
    job = make_job()
    assert job.words == (*PROGRAM, "serve")
    assert job.address == "http://127.0.0.1:8121"


def test_a_flag_and_its_value_are_one_word() -> None:
    job = make_job("--port", "9000", "--host", "::1", "--access-log", "--cors-origins", "*")
    assert job.words[2:] == ("--host=::1", "--port=9000", "--cors-origins=*", "--access-log=true")
    assert job.address == "http://[::1]:9000"


def test_paths_do_not_depend_on_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_mean: Artifact
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(tiny_mean.directory)
    (tmp_path / "s.toml").write_text("threads = 1\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    job = make_job(
        *("--model", "here", "--model", "bge-m3", "--config", "s.toml"),
        *("--api-key-file", "keys/ä b", "--uds", "~/s"),
    )
    assert job.flags == (
        ("--model", str(tmp_path / "here")),
        ("--model", "bge-m3"),
        ("--uds", str(tmp_path / "home" / "s")),
        ("--api-key-file", str(tmp_path / "keys/ä b")),
        ("--config", str(tmp_path / "s.toml")),
    )
    assert job.settings.threads == 1
    assert job.address == str(tmp_path / "home" / "s")


def test_a_name_of_the_catalogue_is_no_directory_that_happens_to_lie_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bge-m3").mkdir()
    assert flags_of(make_job("--model", "bge-m3"))["--model"] == "bge-m3"


def test_the_environment_of_now_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PORT", "1"), ("CONFIG", "/none"), ("TOKEN_ENV", "SECRET")):
        monkeypatch.setenv(f"CORTEX_EMBED_{name}", value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    job = make_job()
    assert job.flags == ()
    assert (job.settings.port, job.settings.token_env, job.settings.offline) == (8121, None, False)


@pytest.mark.parametrize("name", sorted(NOT_FOR_A_SERVICE))
def test_what_needs_a_host_is_neither_a_flag_nor_in_the_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = (row for row in rows() if row.name == name)
    with pytest.raises(SystemExit):
        make_job(row.flag, "1")
    assert "unrecognized arguments" in capsys.readouterr().err
    file = tmp_path / "s.toml"
    file.write_text(f'{name} = "{"true" if row.is_switch else "9"}"\n')
    with pytest.raises(UsageError, match=f"{name} is not for a service"):
        make_job("--config", str(file))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "x"], "--port: 'x' must be a whole number"),
        (["--uds", " "], "--uds: ' ' must not be empty"),
        (["--config", "/none.toml"], "cannot read /none.toml"),
        (["--system", "--uds", "/run/x"], "--uds /run/x: with --system nobody but"),
        (["--system", "--ready-file", "/run/x"], "--ready-file /run/x: with --system"),
        (["--system", "--model-dir", "/home/ann/m"], "--model-dir /home/ann/m: a service of the"),
        (["--system", "--catalogue", "/root/c"], "does not see /root"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_job(*words)
    assert message in caught.value.message


def test_a_relative_path_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('model_dir = "models"\n')
    with pytest.raises(UsageError, match="model_dir is the relative path models"):
        make_job("--config", str(file))


def test_a_program_that_the_system_hides_is_refused() -> None:
    with pytest.raises(UsageError, match="the program /home/ann/bin/x: a service of the system"):
        make_job("--system", program=("/home/ann/bin/x",))
