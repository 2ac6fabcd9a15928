"""A directory appears complete or not at all, and nothing stays behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_embed.errors import OutputError
from staging import replace_directory, staging

BUILD = Path(__file__).resolve().parents[2] / "build"
WAITING = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from staging import exit_on_sigterm, staging
exit_on_sigterm()
with staging(Path(sys.argv[2])) as part:
    (part / "half").write_text("x")
    print("staged", flush=True)
    time.sleep(60)
"""


def test_the_staging_directory_is_a_sibling_and_goes(tmp_path: Path) -> None:
    with staging(tmp_path / "new" / "out") as part:
        assert part.parent == tmp_path / "new"
        (part / "file").write_text("x")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("failure", [KeyboardInterrupt, ValueError, SystemExit])
def test_nothing_stays_after_a_failure(tmp_path: Path, failure: type[BaseException]) -> None:
    with pytest.raises(failure), staging(tmp_path / "out"):
        raise failure
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"out cannot be written: No space left on device"),
        staging(tmp_path / "out"),
    ):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_path_under_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"), staging(tmp_path / "file" / "out"):
        pytest.fail("entered")


def test_a_file_in_the_way_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(OutputError, match="a file, not a directory"), staging(tmp_path / "out"):
        pytest.fail("entered")


def test_replacing_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    out, new = tmp_path / "out", tmp_path / "new"
    for directory, content in ((out, "old"), (new, "new")):
        directory.mkdir()
        (directory / "marker").write_text(content)
    (out / "stale").write_text("x")
    replace_directory(new, out, marker="marker")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [(p.name, p.read_text()) for p in out.iterdir()] == [("marker", "new")]


def test_replacing_never_removes_what_is_not_ours(tmp_path: Path) -> None:
    out, new = tmp_path / "out", tmp_path / "new"
    out.mkdir()
    new.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match=r"holds other files \(no marker\)"):
        replace_directory(new, out, marker="marker")
    assert (out / "thesis.txt").read_text() == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", WAITING, str(BUILD), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"staged\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(number)
        assert process.wait(timeout=30) != 0
    assert list(tmp_path.iterdir()) == []
