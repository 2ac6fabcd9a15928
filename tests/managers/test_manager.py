"""The mark, the files and the tools of every manager."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from cortex_embed.errors import InstanceError, OutputError
from cortex_embed.managers import manager
from tests.managers.conftest import Tool


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_the_mark_is_found_in_any_encoding(encoding: str) -> None:
    assert manager.is_ours(f"<a>{manager.MARK} (9.9).</a>".encode(encoding))
    assert not manager.is_ours("# Written by cortex-embed's user".encode(encoding))


def test_a_file_is_replaced_whole_and_readable_by_the_manager(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b" / "unit"
    assert manager.read(place) is None
    manager.write(place, b"one")
    manager.write(place, b"two")
    assert manager.read(place) == b"two"
    assert [one.name for one in place.parent.iterdir()] == ["unit"]
    if sys.platform != "win32":
        assert stat.S_IMODE(place.stat().st_mode) == 0o644
    manager.remove(place)
    manager.remove(place)
    assert not place.exists()


def test_a_place_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=str(tmp_path)):
        manager.write(tmp_path / "file" / "unit", b"")
    with pytest.raises(OutputError, match=str(tmp_path)):
        manager.read(tmp_path)
    with pytest.raises(OutputError, match=str(tmp_path)):
        manager.remove(tmp_path)


def test_a_tool_is_run_in_the_systems_environment(
    tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp/_MEI0000002aabcdef")  # noqa: S108
    monkeypatch.delenv("LD_LIBRARY_PATH_ORIG", raising=False)
    tool.answer("managertool", '*) echo "library=$LD_LIBRARY_PATH"; echo oops >&2; exit 3;;')
    assert manager.tool("managertool", "a b") == (3, "library=\noops")
    with pytest.raises(InstanceError, match="exit code 3: library"):
        manager.must("managertool", "a b")
    assert tool.calls == ["managertool a b"] * 2


def test_a_tool_that_is_not_there_is_named() -> None:
    with pytest.raises(InstanceError, match="no-such-tool cannot be run: No such file"):
        manager.tool("no-such-tool")
