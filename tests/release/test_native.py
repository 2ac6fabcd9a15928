"""Native libraries: whose they are, which version, under which words."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from release import ReleaseError, native


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("libcrypto.so.3", "openssl"),
        ("libssl-3.dll", "openssl"),
        ("libstdc++.so.6", "gcc-runtime"),
        ("libscipy_openblas64_-32a4b2a6.so", "openblas"),
        ("msvcp140-a4c2229bdc2a2a630acdc095b4d86008.dll", "microsoft-visual-c-runtime"),
        ("VCRUNTIME140.dll", "microsoft-visual-c-runtime"),
        ("libzstd.so.1", None),
        ("libmystery.so", None),
    ],
)
def test_a_library_by_its_file_name(file: str, name: str | None) -> None:
    if name is not None:
        assert native.library_of(file).name == name
        return
    with pytest.raises(ReleaseError, match=r"libraries.toml does not know"):
        native.library_of(file)


def test_names_and_prefixes_are_of_one_library_each() -> None:
    rows = native.libraries()
    # A library that changed its terms has a row for each; only one says what it is linked into.
    assert len({row.name for row in rows if row.modules}) == len([r for r in rows if r.modules])
    owners = [(prefix, row) for row in rows for prefix in row.prefixes]
    assert all(prefix == prefix.lower() for prefix, _ in owners)
    for place, (prefix, row) in enumerate(owners):
        others = [(at, o) for at, (p, o) in enumerate(owners) if prefix.startswith(p)]
        assert others[0] == (place, row), f"{prefix} never gets its row"
        assert {other.name for _, other in others} == {row.name}


def test_openssl_changed_its_terms() -> None:
    assert native.library_of("libcrypto.so.1.1").licence == "OpenSSL"
    assert native.library_of("libcrypto.so.3").licence == "Apache-2.0"


def test_what_is_linked_into_python_has_version_and_text() -> None:
    for row in native.libraries():
        if row.modules and row.name != "sqlite":
            assert native.linked_version(row)
            (text,) = native.standard_text(row).values()
            assert len(text) > 100


def test_a_library_without_a_text_stops(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = native.Library(name="mystery", prefixes=("libmystery",), licence="MIT")
    with pytest.raises(ReleaseError, match="No licence text of mystery"):
        native.standard_text(row)
    monkeypatch.setattr(native, "TEXTS", tmp_path)
    (tmp_path / "mystery.txt").write_text("terms", encoding="utf-8")
    assert native.standard_text(row) == {"its authors' terms": "terms"}


def test_the_microsoft_runtime_is_under_what_python_says_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row = native.library_of("vcruntime140.dll")
    monkeypatch.setattr(native, "cpython_licence", lambda: "Microsoft Distributable Code")
    assert list(native.standard_text(row).values()) == ["Microsoft Distributable Code"]
    monkeypatch.setattr(native, "cpython_licence", lambda: "only Python's")
    with pytest.raises(ReleaseError, match="microsoft-visual-c-runtime"):
        native.standard_text(row)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], str]:
    """What package managers say, by the end of a command; anything else is a no."""
    said: dict[tuple[str, ...], str] = {}

    def run(*command: str) -> str | None:
        for (program, end), text in said.items():
            if command[0] == program and command[-1] == end:
                return text
        return None

    monkeypatch.setattr(native, "_run", run)
    return said


def test_debian_s_packages(
    answers: dict[tuple[str, ...], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Known there by the path before /usr was merged; its text refers to a common one."""
    library = tmp_path / "usr" / "lib" / "libstdc++.so.6"
    answers["dpkg-query", str(library)] = f"libstdc++6:amd64: {library}\n"
    answers["dpkg-query", "libstdc++6:amd64"] = "libstdc++6 12.2.0-14 amd64"
    monkeypatch.setattr(native, "_DOC", tmp_path / "doc")
    monkeypatch.setattr(native, "_COMMON", tmp_path / "common")
    for path, text in (
        ("doc/libstdc++6/copyright", f"see {tmp_path / 'common'}/GPL-3"),
        ("common/GPL-3", "the whole of it"),
        ("common/Apache-2.0", "another"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    found = native.origin(native.library_of("libstdc++.so.6"), library)
    assert found.version == "12.2.0-14"
    assert found.purl == "pkg:deb/debian/libstdc++6@12.2.0-14?arch=amd64"
    assert list(found.texts.values()) == [f"see {tmp_path / 'common'}/GPL-3", "the whole of it"]


def test_rpm_s_packages_and_their_siblings(
    answers: dict[tuple[str, ...], str], tmp_path: Path
) -> None:
    """AlmaLinux has libstdc++'s licence in libgcc's package, of the same source."""
    form = "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{SOURCERPM}\n"
    text = tmp_path / "COPYING3"
    text.write_text("terms", encoding="utf-8")
    answers["rpm", "/usr/lib64/libstdc++.so.6"] = "libstdc++ 8.5.0-1 x86_64 gcc-8.5.0-1.src.rpm\n"
    answers["rpm", form] = (
        "zlib 1.2.11-1 x86_64 zlib-1.2.11-1.src.rpm\nlibgcc 8.5.0-1 x86_64 gcc-8.5.0-1.src.rpm\n"
    )
    answers["rpm", "libstdc++"] = ""
    answers["rpm", "libgcc"] = f"{text}\n"
    library = native.library_of("libstdc++.so.6")
    found = native.origin(library, Path("/usr/lib64/libstdc++.so.6"))
    assert found.version == "8.5.0-1"
    assert found.purl == "pkg:rpm/libstdc++@8.5.0-1?arch=x86_64"
    assert found.texts == {f"libgcc 8.5.0-1, {text}": "terms"}


def test_a_library_of_the_python_itself(
    answers: dict[tuple[str, ...], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not answers
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    found = native.origin(native.library_of("libz.so.1"), tmp_path / "lib" / "libz.so.1")
    assert found.version == native.linked_version(native.library_of("libz.so.1"))
    assert "Jean-loup Gailly" in next(iter(found.texts.values()))


def test_a_library_of_nobody_stops(answers: dict[tuple[str, ...], str], tmp_path: Path) -> None:
    assert not answers
    with pytest.raises(ReleaseError, match="belongs to no package of dpkg or rpm"):
        native.origin(native.library_of("libz.so.1"), tmp_path / "libz.so.1")


@pytest.mark.skipif(platform.system() == "Windows", reason="no package manager to ask")
def test_a_program_that_is_not_there_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    assert native._run("sh", "-c", "echo yes") == "yes\n"
    assert native._run("sh", "-c", "exit 1") is None
    assert native._run("no-such-program") is None
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("it was run"))
    assert native._run("no-such-program") is None


def test_cpython_s_own_licence_is_found() -> None:
    assert "PYTHON SOFTWARE FOUNDATION" in native.cpython_licence().upper()
