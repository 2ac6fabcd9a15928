"""The same files give the same archive, wherever and whenever they lie; nothing leads outside."""

from __future__ import annotations

import gzip
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

from release import archive
from tests.release.fake_release import EPOCH

NAMES = ("cortex-embed-linux-x64.tar.gz", "cortex-embed-windows-x64.zip")


def files(base: Path) -> dict[str, Path]:
    base.mkdir()
    made = {}
    for name, content in (("cortex-embed", b"program"), ("LICENSE", b"terms"), ("_i/d/x.so", b"l")):
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        made[name] = path
    return made


@pytest.mark.parametrize("name", NAMES)
def test_same_files_same_bytes(tmp_path: Path, name: str) -> None:
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    for path in two.values():
        os.utime(path, (1, 1))
        path.chmod(0o600)
    outs = []
    for number, chosen in enumerate((one, dict(reversed(two.items())))):
        out = tmp_path / str(number) / name
        out.parent.mkdir()
        archive.write(out, chosen, executable="cortex-embed", epoch=EPOCH)
        outs.append(out.read_bytes())
    assert outs[0] == outs[1]


@pytest.mark.parametrize("name", NAMES)
def test_one_top_directory_two_modes_one_date_no_owner(tmp_path: Path, name: str) -> None:
    made = files(tmp_path / "in")
    made["_i/d/x.so"].chmod(0o700)
    made["cortex-embed"].chmod(0o600)
    out = tmp_path / name
    archive.write(out, made, executable="cortex-embed", epoch=EPOCH)
    top = archive.stem(name)
    with archive.reading(out) as reader:
        members = {m.name: m for m in reader.members() if not m.is_directory}
        assert set(members) == {f"{top}/cortex-embed", f"{top}/LICENSE", f"{top}/_i/d/x.so"}
        assert members[f"{top}/cortex-embed"].mode == 0o755
        assert members[f"{top}/LICENSE"].mode == 0o644
        if sys.platform != "win32":
            assert members[f"{top}/_i/d/x.so"].mode == 0o755
        with reader.open(f"{top}/LICENSE") as file:
            assert file.read() == b"terms"
        with pytest.raises(KeyError), reader.open(f"{top}/nothing") as _:
            pass
    if name.endswith(".zip"):
        with zipfile.ZipFile(out) as packed:
            assert {i.date_time for i in packed.infolist()} == {time.gmtime(EPOCH)[:6]}
    else:
        assert out.read_bytes()[4:8] == bytes(4)  # gzip's own date
        with tarfile.open(out) as tar:
            facts = {(i.mtime, i.uid, i.gid, i.uname, i.gname) for i in tar}
            assert facts == {(EPOCH, 0, 0, "", "")}
            assert tar.getnames()[0] == top


@pytest.mark.parametrize("name", NAMES)
def test_what_was_packed_is_unpacked(tmp_path: Path, name: str) -> None:
    made = files(tmp_path / "in")
    out = tmp_path / name
    archive.write(out, made, executable="cortex-embed", epoch=EPOCH)
    with archive.reading(out) as reader:
        reader.unpack(tmp_path / "out")
    back = archive.tree(tmp_path / "out" / archive.stem(name))
    assert {n: p.read_bytes() for n, p in back.items()} == {
        n: p.read_bytes() for n, p in made.items()
    }


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_stay_links_in_a_tar_and_are_refused_in_a_zip(tmp_path: Path) -> None:
    made = files(tmp_path / "in")
    made["link"] = tmp_path / "in" / "link"
    made["link"].symlink_to("_i/d/x.so")
    out = tmp_path / NAMES[0]
    archive.write(out, made, executable="cortex-embed", epoch=EPOCH)
    with archive.reading(out) as reader:
        links = {m.name.rpartition("/")[2]: m.link for m in reader.members() if m.link}
    assert links == {"link": "_i/d/x.so"}
    with pytest.raises(ValueError, match="link is a symbolic link"):
        archive.write(tmp_path / NAMES[1], made, executable="cortex-embed", epoch=EPOCH)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../../x"])
def test_what_leaves_the_top_directory_is_refused(tmp_path: Path, name: str) -> None:
    chosen = {name: next(iter(files(tmp_path / "in").values()))}
    with pytest.raises(ValueError, match="outside"):
        archive.write(tmp_path / NAMES[0], chosen, executable="x", epoch=EPOCH)


@pytest.mark.parametrize("content", [b"", b"no archive", gzip.compress(b"no tar" * 200)])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_archive_raises(tmp_path: Path, name: str, content: bytes) -> None:
    out = tmp_path / name
    out.write_bytes(content)
    with (
        pytest.raises((OSError, EOFError, tarfile.TarError, zipfile.BadZipFile)),
        archive.reading(out) as reader,
    ):
        reader.members()


@pytest.mark.parametrize(
    ("name", "link"), [("../x", None), ("/x", None), ("top/a", "../../x"), ("top/a", "/etc/passwd")]
)
def test_what_would_leave_the_directory_is_not_unpacked(
    tmp_path: Path, name: str, link: str | None
) -> None:
    out = tmp_path / NAMES[0]
    with tarfile.open(out, "w:gz") as tar:
        info = tarfile.TarInfo(name)
        if link is not None:
            info.type, info.linkname = tarfile.SYMTYPE, link
        tar.addfile(info)
    with archive.reading(out) as reader, pytest.raises(ValueError, match="would leave"):
        reader.unpack(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_unpacked_as_links(tmp_path: Path) -> None:
    made = files(tmp_path / "in")
    made["_i/link"] = tmp_path / "in" / "_i" / "link"
    made["_i/link"].symlink_to("../LICENSE")
    archive.write(tmp_path / NAMES[0], made, executable="cortex-embed", epoch=EPOCH)
    with archive.reading(tmp_path / NAMES[0]) as reader:
        reader.unpack(tmp_path)
    link = tmp_path / archive.stem(NAMES[0]) / "_i" / "link"
    assert link.is_symlink()
    assert link.read_bytes() == b"terms"
