"""Release notes are the changelog's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from release import notes

CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2026-02-03

### Added

- Two,
  over two lines.

## [0.1.0] - 2026-02-30

### Fixed

[0.2.0]: https://example.org/v0.2.0
"""


def test_sections_in_their_order() -> None:
    found = notes.sections(CHANGELOG)
    assert [(s.version, s.day) for s in found] == [
        ("Unreleased", None), ("0.2.0", "2026-02-03"), ("0.1.0", "2026-02-30"),
    ]  # fmt: skip
    assert [str(s.date) for s in found] == ["None", "2026-02-03", "None"]


def test_a_section_s_words_and_no_other() -> None:
    assert notes.notes(CHANGELOG, "0.2.0") == "### Added\n\n- Two,\n  over two lines.\n"


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("0.1.0", r"section \[0.1.0\] is empty"),
        ("0.3.0", r"no section \[0.3.0\]. It has: Unreleased, 0.2.0, 0.1.0"),
    ],
)
def test_nothing_to_say_is_an_error(version: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        notes.notes(CHANGELOG, version)


def test_a_heading_of_another_form_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"heading '0.4 \(soon\)' is not"):
        notes.sections("## 0.4 (soon)\n")


def test_main_prints_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "CHANGELOG.md"
    file.write_text(CHANGELOG, encoding="utf-8")
    monkeypatch.setattr(notes, "CHANGELOG", file)
    assert notes.main(["0.2.0"]) == 0
    assert capsys.readouterr().out.startswith("### Added")
    assert notes.main(["0.3.0"]) == 1
    assert "error: the changelog has no section [0.3.0]" in capsys.readouterr().err
