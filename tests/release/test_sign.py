"""Signing: loud without secrets, a failure with half of them, and the right words to the tools.

The tools are stand-ins that write down what they are told: Apple's and Microsoft's run nowhere
else, and their verdicts are their own.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

import pytest

from release import sign

MACH_O, PE = b"\xcf\xfa\xed\xfe....", b"MZ.."
IDENTITY = "0123456789ABCDEF0123456789ABCDEF01234567"
SECRET = "a-password-that-nobody-may-read"

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="the stand-ins for Apple's tools are shell scripts"
)


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """What `freeze --release` leaves, in small: two forms, a library, data, a work directory."""
    root = tmp_path / "frozen"
    for name, content in {
        "full/cortex-embed": MACH_O,
        "full/onedir/cortex-embed-onedir": MACH_O,
        "full/onedir/_internal/libpython.dylib": MACH_O,
        "full/onedir/_internal/base_library.zip": b"PK..",
        "full/.work/pyinstaller/cortex-embed": MACH_O,
        "slim/cortex-embed": MACH_O,
        "windows/cortex-embed.exe": PE,
        "windows/python313.dll": PE,
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins first on PATH; each appends its arguments to the file that is returned."""
    log, directory = tmp_path / "told", tmp_path / "tools"
    directory.mkdir()
    answers = {
        "security": "case $1 in list-keychains) "
        "[ $# -gt 1 ] || echo '    \"login.keychain-db\"' ;; "
        f"find-identity) echo '  1) {IDENTITY} \"Developer ID Application: X (Y)\"' ;; esac",
        "codesign": ":",
        "ditto": ': >"$4"',
        "xcrun": 'case $2 in submit) cat "$VERDICT" ;; log) echo "the log: no timestamp" ;; esac',
        "pwsh": 'case $SIGNED_FILE in *.exe) echo Valid ;; *) echo "$DLL" ;; esac',
    }
    for name, body in answers.items():
        tool = directory / name
        tool.write_text(f'#!/bin/sh\necho "{name} $*" >>{log}\n{body}\n', encoding="utf-8")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    verdict = tmp_path / "verdict"
    verdict.write_text(json.dumps({"id": "42", "status": "Accepted"}), encoding="utf-8")
    monkeypatch.setenv("VERDICT", str(verdict))
    monkeypatch.setenv("DLL", "Valid")
    return log


@pytest.fixture
def github(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GITHUB_STEP_SUMMARY", "GITHUB_OUTPUT"):
        (tmp_path / name).write_text("", encoding="utf-8")
        monkeypatch.setenv(name, str(tmp_path / name))
    for names in sign.SECRETS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return tmp_path


def on(system: str, monkeypatch: pytest.MonkeyPatch, *, secrets: bool) -> None:
    monkeypatch.setattr(sys, "platform", system)
    for name in sign.SECRETS[system] if secrets else ():
        monkeypatch.setenv(name, base64.b64encode(SECRET.encode()).decode())


@pytest.mark.parametrize("system", sorted(sign.SECRETS))
def test_without_secrets_it_says_so_where_nobody_overlooks_it(
    system: str, frozen: Path, github: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on(system, monkeypatch, secrets=False)
    assert sign.main(["--frozen", str(frozen)]) == 0
    said = capsys.readouterr().out
    summary = (github / "GITHUB_STEP_SUMMARY").read_text(encoding="utf-8")
    for text in (said, summary):
        assert "UNSIGNED" in text
        assert all(name in text for name in sign.SECRETS[system])
    assert said.startswith("::warning ")
    assert (github / "GITHUB_OUTPUT").read_text(encoding="utf-8") == ""


@pytest.mark.parametrize(
    ("system", "missing"),
    [(system, name) for system, names in sorted(sign.SECRETS.items()) for name in names],
)
def test_half_of_the_secrets_is_a_failure_that_names_the_missing(
    *, system: str, missing: str, frozen: Path, github: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on(system, monkeypatch, secrets=True)
    monkeypatch.setenv(missing, "")  # as GitHub passes a secret that does not exist
    assert sign.main(["--frozen", str(frozen)]) == 1
    assert f"::error title=Signing::{missing} is missing" in capsys.readouterr().out
    assert (github / "GITHUB_OUTPUT").read_text(encoding="utf-8") == ""


def test_linux_has_nothing_to_sign(
    frozen: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert sign.main(["--frozen", str(frozen)]) == 0
    assert "attestation" in capsys.readouterr().out


def test_macos_signs_libraries_before_executables_and_notarizes_the_whole(
    frozen: Path, tools: Path, github: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on("darwin", monkeypatch, secrets=True)
    assert sign.main(["--frozen", str(frozen)]) == 0, capsys.readouterr().out
    told = tools.read_text(encoding="utf-8").splitlines()
    signed = [line for line in told if line.startswith("codesign --force")]
    assert [Path(line.split()[-1]).name for line in signed] == [
        "libpython.dylib", "cortex-embed", "cortex-embed-onedir", "cortex-embed",
    ]  # fmt: skip
    assert all(f"--sign {IDENTITY}" in line for line in signed)
    assert all("--options runtime" in line and "--timestamp" in line for line in signed)
    assert ["entitlements" in line for line in signed] == [False, True, True, True]
    assert sum(line.startswith("codesign --verify") for line in told) == 4
    submitted = next(line for line in told if "notarytool submit" in line)
    assert "--wait" in submitted
    assert told.index(submitted) > told.index(signed[-1])
    # The keychain goes, and the person's own is searched again.
    assert [line for line in told if "list-keychains -d user" in line][-1].endswith(
        "-s login.keychain-db"
    )
    assert any("delete-keychain" in line for line in told)
    assert SECRET not in capsys.readouterr().out


def test_a_refusal_by_apple_is_a_failure_although_the_tool_exits_with_0(
    frozen: Path, tools: Path, github: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on("darwin", monkeypatch, secrets=True)
    Path(os.environ["VERDICT"]).write_text('{"id": "42", "status": "Invalid"}', encoding="utf-8")
    assert sign.main(["--frozen", str(frozen)]) == 1
    said = capsys.readouterr().out
    assert "'Invalid'" in said
    assert "the log: no timestamp" in said


def test_a_tool_that_fails_is_quoted_without_its_arguments(
    frozen: Path, tools: Path, github: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on("darwin", monkeypatch, secrets=True)
    security = tools.parent / "tools" / "security"
    script = security.read_text(encoding="utf-8")
    security.write_text(
        script + '[ "$1" != import ] || { echo "MAC verification failed" >&2; exit 7; }\n',
        encoding="utf-8",
    )
    assert sign.main(["--frozen", str(frozen)]) == 1
    said = capsys.readouterr().out
    assert "security import exited with 7: MAC verification failed" in said
    assert os.environ["APPLE_CERTIFICATE_PASSWORD"] not in said
    # What was made is taken away all the same.
    assert "delete-keychain" in tools.read_text(encoding="utf-8")


def test_windows_lists_every_pe_file_for_azures_action(
    frozen: Path, github: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on("win32", monkeypatch, secrets=True)
    assert sign.main(["--frozen", str(frozen)]) == 0
    listed = (frozen / sign.CATALOG).read_text(encoding="utf-8").splitlines()
    assert listed == ["windows/python313.dll", "windows/cortex-embed.exe"]
    assert (github / "GITHUB_OUTPUT").read_text(encoding="utf-8") == "azure=true\n"


@pytest.mark.parametrize(("status", "code"), [("Valid", 0), ("NotSigned", 1), ("HashMismatch", 1)])
def test_windows_signatures_are_checked_one_by_one(
    *, status: str, code: int, frozen: Path, tools: Path, github: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    on("win32", monkeypatch, secrets=True)
    monkeypatch.setenv("DLL", status)
    assert sign.main(["--frozen", str(frozen)]) == 0
    assert sign.main(["--frozen", str(frozen), "--verify"]) == code
    assert (f"python313.dll: {status}" in capsys.readouterr().out) == bool(code)
    assert (frozen / sign.CATALOG).exists() == bool(code)


def test_nothing_to_sign_is_a_failure(
    tmp_path: Path,
    github: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    on("win32", monkeypatch, secrets=True)
    assert sign.main(["--frozen", str(tmp_path)]) == 1
    assert "nox -s freeze -- --release" in capsys.readouterr().out
