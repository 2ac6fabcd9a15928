"""OpenAI's vocabulary by pin, from a local index of ours."""

from __future__ import annotations

import os
import zipfile
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

import fetch_vocabulary
from cortex_embed.errors import ModelFileError
from cortex_embed.providers import cl100k
from fetch_vocabulary import PLAIN, SOURCE, WHEEL, fetch, is_intact, main, plain, tokens_of

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.catalogue import SourceFile, Wheel

TOKENS = [bytes([n % 256, n // 256 % 256, n // 65536]) for n in range(cl100k.SIZE)]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip looks in: no network, no configuration of the person's."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return directory


def pinned(index: Path, content: bytes) -> tuple[SourceFile, Wheel]:
    """A wheel on `index` that carries `content`, and the pins of both."""
    path = index / WHEEL.filename
    info = f"llama_index_core-{WHEEL.version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(WHEEL.prefix + PLAIN, content)
        archive.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {WHEEL.name}\nVersion: {WHEEL.version}\n",
        )
        archive.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(f"{info}/RECORD", "")
    source = replace(SOURCE, size=len(content), sha256=sha256(content).hexdigest())
    return source, replace(WHEEL, sha256=sha256(path.read_bytes()).hexdigest())


def test_the_wheel_gives_the_packed_vocabulary_once(
    index: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, wheel = pinned(index, plain(TOKENS))
    out = tmp_path / "out"
    fetch(out, source=source, wheel=wheel)
    packed = out / cl100k.FILE.name
    assert [path.name for path in out.iterdir()] == [packed.name]
    assert cl100k.unpack(packed.read_bytes()) == TOKENS
    assert "Fetching cl100k_base: 1.6 MB" in capfd.readouterr().out
    (index / WHEEL.filename).unlink()
    fetch(out, source=source, wheel=wheel)
    assert "is there and verified" in capfd.readouterr().out


def test_a_damaged_file_is_fetched_again(index: Path, tmp_path: Path) -> None:
    source, wheel = pinned(index, plain(TOKENS))
    packed = tmp_path / cl100k.FILE.name
    packed.write_bytes(cl100k.pack([*TOKENS[:-1], b"other"]))
    assert not is_intact(packed, source)
    fetch(tmp_path, source=source, wheel=wheel)
    assert is_intact(packed, source)


def test_another_vocabulary_is_refused_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    _, wheel = pinned(index, plain(TOKENS))
    with pytest.raises(
        ModelFileError, match=f"expected 1,681,126 bytes and SHA-256 {SOURCE.sha256}"
    ):
        fetch(tmp_path / "out", wheel=wheel)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def test_lines_there_and_back() -> None:
    assert tokens_of(plain(TOKENS)) == TOKENS


def test_tiktoken_gets_the_file_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_vocabulary, "is_intact", lambda *_: True)
    (tmp_path / cl100k.FILE.name).write_bytes(cl100k.pack(TOKENS))
    for _ in range(2):
        assert main(["--out", str(tmp_path), "--plain", str(tmp_path / "plain")]) == 0
        assert (tmp_path / "plain" / PLAIN).read_bytes() == plain(TOKENS)


def test_what_this_checkout_carries_is_openais() -> None:
    assert is_intact(cl100k.FILE), f"{cl100k.FILE} is missing; `nox -s tests` makes it."
