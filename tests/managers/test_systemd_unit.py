"""The unit: its quoting, what it promises, and systemd's own opinion of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cortex_embed import errors
from cortex_embed.errors import UsageError
from cortex_embed.managers.manager import is_ours
from cortex_embed.managers.systemd_unit import quoted, unit
from tests.managers.conftest import make_job

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd is not installed here"
)


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, flags=re.MULTILINE)


@pytest.mark.parametrize(
    ("word", "in_a_unit"),
    [
        ("--port=9000", "--port=9000"),
        ("--uds=/a b/ä", '"--uds=/a b/ä"'),
        ("--uds=/100%", "--uds=/100%%"),
        ("--uds=/$HOME", '"--uds=/$$HOME"'),
        ('--uds=/"q"\\', '"--uds=/\\"q\\"\\\\"'),
        ("--uds=/'q'", "\"--uds=/'q'\""),
        ("a;b", '"a;b"'),
        ("a\nb", '"a\\nb"'),
        ("", '""'),
    ],
)
def test_words_are_quoted_as_systemd_reads_them(word: str, in_a_unit: str) -> None:
    assert quoted(word) == in_a_unit


def test_the_program_itself_may_hold_a_dollar() -> None:
    # systemd replaces no variables in the path of what it executes.
    assert values(unit(make_job(program=("/opt/$x/y",))), "ExecStart") == ['"/opt/$x/y" serve']


@pytest.mark.parametrize("path", ['/a"b/x', "/a'b/x", "/a\\b/x", "/a\nb/x"])
def test_a_program_that_systemd_would_not_start_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="systemd executes no path with quotes"):
        unit(make_job(program=(path,)))


def test_a_users_unit() -> None:
    text = unit(make_job("--grace-period", "500ms", "--host", "fe80::1%eth0"))
    assert is_ours(text.encode())
    assert text.startswith("# Written by")
    assert values(text, "Type") == ["notify"]
    assert values(text, "NotifyAccess") == ["all"]
    assert values(text, "TimeoutStopSec") == ["16"]
    assert values(text, "WantedBy") == ["default.target"]
    assert values(text, "Description")[0].endswith("http://[fe80::1%%eth0]:8121")
    for key in ("DynamicUser", "PrivateTmp", "ProtectSystem", "IPAddressDeny", "After"):
        assert values(text, key) == [], "needs what a user's manager may not have"


def test_codes_that_no_restart_mends() -> None:
    (codes,) = values(unit(make_job()), "RestartPreventExitStatus")
    wanted = (errors.UsageError, errors.ModelFileError, errors.OutputError)
    assert {int(code) for code in codes.split()} == {kind.exit_code for kind in wanted}


def test_a_systems_unit_writes_only_into_its_own_directories() -> None:
    text = unit(make_job("--system"))
    assert values(text, "DynamicUser") == ["yes"]
    assert values(text, "StateDirectory") == values(text, "CacheDirectory") == ["cortex-embed"]
    assert values(text, "WantedBy") == ["multi-user.target"]
    assert values(text, "CapabilityBoundingSet") == [""]
    assert values(text, "PrivateUsers") == ["yes"]
    assert values(text, "IPAddressDeny") == [], "it may have to download the model"


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (["--offline"], ["any"]),
        (["--offline", "--host", "::1"], ["any"]),
        (["--offline", "--host", "0.0.0.0"], []),  # noqa: S104 - only written down
    ],
)
def test_offline_on_loopback_is_held_by_the_kernel(words: list[str], held: list[str]) -> None:
    assert values(unit(make_job("--system", *words)), "IPAddressDeny") == held


def test_a_privileged_port_takes_one_capability_along() -> None:
    text = unit(make_job("--system", "--port", "80"))
    assert values(text, "AmbientCapabilities") == ["CAP_NET_BIND_SERVICE"]
    assert values(text, "PrivateUsers") == [], "there the capability would not count"


def test_keys_of_the_system_stay_roots() -> None:
    text = unit(make_job("--system", "--api-key-file", "/etc/my keys 100%"))
    assert values(text, "LoadCredential") == ["api-keys:/etc/my keys 100%%"]
    (command,) = values(text, "ExecStart")
    assert command.endswith(" serve --api-key-file=${CREDENTIALS_DIRECTORY}/api-keys")
    own = unit(make_job("--api-key-file", "/home/ann/keys"))
    assert values(own, "ExecStart")[0].endswith(" serve --api-key-file=/home/ann/keys")
    assert values(own, "LoadCredential") == []


def test_keys_that_a_settings_file_names_are_handed_over_too(tmp_path: Path) -> None:
    # In a place that the service of the system sees.
    from dataclasses import replace

    job = make_job("--system")
    job = replace(job, settings=replace(job.settings, api_key_file=Path("/etc/keys")))
    text = unit(job)
    assert values(text, "LoadCredential") == ["api-keys:/etc/keys"]
    assert "--api-key-file=${CREDENTIALS_DIRECTORY}/api-keys" in text


@analyze
@pytest.mark.parametrize("scope", ["user", "system"])
def test_systemd_verifies_it(scope: str, tmp_path: Path) -> None:
    place = tmp_path / "a dir, 100% $HOME; ä"
    place.mkdir()
    exe = place / "cortex-embed"
    exe.write_text("#!/bin/sh\n")
    exe.chmod(0o755)
    words = ["--host", "fe80::1%lo", "--catalogue", f"/srv/{place.name} \"q\" 'q' \\"]
    words += ["--api-key-file", "/etc/the keys", "--offline"]
    job = make_job(*words, program=(str(exe),))
    if scope == "system":
        from dataclasses import replace

        job = replace(job, system=True)
    file = tmp_path / "cortex-embed.service"
    file.write_text(unit(job), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", f"--{scope}", "--recursive-errors=no", "verify", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    ours = [line for line in done.stderr.splitlines() if "cortex-embed" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    broken = unit(job).replace("ExecStart=", "ExecStart=/no/such/program ")
    file.write_text(broken, encoding="utf-8")
    command = ["systemd-analyze", f"--{scope}", "--recursive-errors=no", "verify", str(file)]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode


@analyze
def test_the_exposure_of_the_systems_unit(tmp_path: Path) -> None:
    """systemd's own score, from 0 (tight) to 10; the threshold is in tenths."""
    file = tmp_path / "cortex-embed.service"
    exe = tmp_path / "cortex-embed"
    exe.touch(0o755)
    from dataclasses import replace

    file.write_text(unit(replace(make_job(program=(str(exe),)), system=True)), encoding="utf-8")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    done = subprocess.run(
        [*command, "--threshold=20"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
