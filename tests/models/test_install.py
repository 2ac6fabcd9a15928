"""A model's directory appears whole or not at all, and nothing else is touched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cortex_embed.errors import UsageError
from cortex_embed.models.install import Place, link_or_copy, plain


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "models", "tiny", "0123456789abcdef")


def stage(place: Place, content: str) -> None:
    place.staging.mkdir(parents=True)
    (place.staging / "file").write_text(content)


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_what_is_staged_takes_the_place_of_what_was_there(place: Place) -> None:
    for content in ("old", "new"):
        with place.locked(pytest.fail):
            stage(place, content)
            place.publish()
        assert (place.final / "file").read_text() == content
        assert names(place.root) == ["tiny", "tiny/file"]


def test_what_is_staged_survives_a_failure_and_nothing_empty_does(place: Place) -> None:
    def fail() -> None:
        with place.locked(pytest.fail):
            stage(place, "half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names(place.root) == [".partial", ".partial/tiny@0123456789ab",
                                 ".partial/tiny@0123456789ab/file"]  # fmt: skip
    (place.staging / "file").unlink()
    with place.locked(pytest.fail):
        pass
    assert names(place.root) == []


def test_a_place_that_cannot_be_taken_is_left_as_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.locked(pytest.fail):
        stage(place, "old")
        place.publish()
        rename = Path.rename

        def fail(path: Path, target: Path) -> Path:
            if path == place.staging:
                raise OSError("in use")
            return rename(path, target)

        stage(place, "new")
        monkeypatch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="in use"):
            place.publish()
        assert (place.final / "file").read_text() == "old"


def test_other_revisions_and_only_they_are_forgotten(place: Place) -> None:
    other = Place(place.root, "tiny-er", place.revision)
    for one in (Place(place.root, "tiny", "main/x"), other, place):
        stage(one, "x")
    with place.locked(pytest.fail):
        place.publish()
    assert names(place.root / ".partial") == ["tiny-er@0123456789ab", "tiny-er@0123456789ab/file"]


def test_removing_says_what_it_freed(place: Place) -> None:
    with place.locked(pytest.fail):
        stage(place, "12345")
        place.publish()
        stage(place, "123")
        assert place.remove() == 8
    assert names(place.root) == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "A", "a:b", "-a", "ü", "x" * 101])
def test_an_id_must_be_a_name_of_a_directory(name: str) -> None:
    with pytest.raises(UsageError, match="way out"):
        plain(name, "way out")


@pytest.mark.parametrize("name", ["bge-small-en-v1.5", "m_1", "0"])
def test_usual_ids_are(name: str) -> None:
    assert plain(name, "") == name


@pytest.mark.parametrize("links", [True, False])
def test_linked_where_possible_copied_elsewhere(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, link, target = tmp_path / "blob", tmp_path / "link", tmp_path / "target"
    blob.write_text("content")
    link.symlink_to(blob)
    target.write_text("what was there")
    if not links:

        def refuse(*_: object) -> None:
            raise OSError

        monkeypatch.setattr(os, "link", refuse)
    link_or_copy(link, target)
    assert target.read_text() == "content"
    assert not target.is_symlink()
    assert target.samefile(blob) is links
    assert len(list(tmp_path.iterdir())) == 3
