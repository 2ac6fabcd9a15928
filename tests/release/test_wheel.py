"""The Python package: what the wheel holds, and that the sdist builds the same."""

from __future__ import annotations

import email.parser
import re
import shutil
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

import compile_kernels
import targets
from cortex_embed import __version__
from release import ReleaseError, wheel

PYPROJECT = tomllib.loads((wheel.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INFO = f"{wheel.STEM}.dist-info"
LIB = Path("app", "cortex_embed", "kernels", "lib")


def copy_tree(root: Path) -> Path:
    """What a build reads of this tree, with stand-ins for the kernels' libraries.

    Stamped as the compiler's own are: all targets' take minutes.
    """
    ignored = shutil.ignore_patterns("__pycache__", "embedded", "lib")
    shutil.copytree(wheel.ROOT / "app", root / "app", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", ".gitignore"):
        shutil.copy(wheel.ROOT / name, root / name)
    (root / LIB).mkdir()
    for target in targets.load().targets:
        library = root / LIB / compile_kernels.library_name(target)
        library.write_text(target.name, encoding="utf-8")
        text = compile_kernels.stamp(compile_kernels.digest(target), library)
        compile_kernels.stamp_of(library).write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree, but for the kernels."""
    out = tmp_path_factory.mktemp("wheel")
    return wheel.make(out / "dist", copy_tree(out / "tree"))[0]


@pytest.fixture(scope="module")
def metadata(made: Path) -> Message:
    with zipfile.ZipFile(made) as archive:
        return email.parser.BytesParser().parsebytes(archive.read(f"{INFO}/METADATA"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what a build reads, to be changed."""
    return copy_tree(tmp_path / "tree")


def test_it_holds_what_the_package_reads(made: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        names = set(archive.namelist())
    package = {name.removeprefix("cortex_embed/") for name in names}
    assert {
        "py.typed",
        "models/catalogue.toml",
        "models/golden/all-minilm-l6-v2.json",
        "server/sidecar.schema.json",
        "server/ui/index.html",
        "vocabularies/cl100k_base.zlib",
        "kernels/kernels.h",
    } <= package
    assert {name for name in package if name.startswith("kernels/lib/")} == {
        f"kernels/lib/{compile_kernels.library_name(target)}" for target in targets.load().targets
    }
    assert f"{INFO}/licenses/LICENSE" in names
    assert any(name.endswith("/LICENSE-tiktoken.txt") for name in names if INFO in name)


def test_it_holds_no_model(made: Path) -> None:
    with zipfile.ZipFile(made) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert not [name for name in sizes if "/embedded/" in name or ".onnx" in Path(name).suffixes]
    assert max(sizes, key=sizes.__getitem__) == "cortex_embed/vocabularies/cl100k_base.zlib"


def test_its_metadata_are_those_of_the_project(metadata: Message) -> None:
    project = PYPROJECT["project"]
    assert (metadata["Name"], metadata["Version"]) == ("cortex-embed", __version__)
    assert metadata["Requires-Python"] == project["requires-python"]
    asked = {need.replace('"', "'") for need in metadata.get_all("Requires-Dist", [])}
    assert asked == set(project["dependencies"])
    mac = "onnxruntime==1.23.2; sys_platform == 'darwin' and platform_machine == 'x86_64'"
    assert mac in asked
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_its_addresses_are_in_the_tables_repository(metadata: Message) -> None:
    repository = f"https://github.com/{targets.load().release.repository}"
    urls = dict(line.split(", ") for line in metadata.get_all("Project-URL", []))
    assert urls["Repository"] == repository
    assert all(url.startswith(repository) for url in urls.values())


def test_the_same_tree_gives_the_same_bytes(made: Path, tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "wheel"
    out.mkdir()
    (out / "cortex_embed-0.0.9-py3-none-any.whl").touch()
    (out / "cortex_embed-0.0.9.tar.gz").touch()
    again, sdist = wheel.make(out, tree)
    assert again.read_bytes() == made.read_bytes()
    assert sdist.read_bytes() == made.with_name(wheel.SDIST).read_bytes()
    assert sorted(out.iterdir()) == sorted([again, sdist])  # an older version is gone


@pytest.mark.parametrize("damaged", [False, True])
def test_without_the_vocabulary_there_is_none(tree: Path, tmp_path: Path, damaged: bool) -> None:
    file = tree / "app" / "cortex_embed" / "vocabularies" / "cl100k_base.zlib"
    if damaged:
        file.write_bytes(file.read_bytes()[:-1])
    else:
        file.unlink()
    with pytest.raises(ReleaseError, match=r"python build/fetch_vocabulary\.py --out"):
        wheel.make(tmp_path / "wheel", tree)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize("change", ["missing", "damaged", "older sources"])
def test_without_every_target_s_kernels_there_is_none(
    tree: Path, tmp_path: Path, change: str
) -> None:
    library = tree / LIB / "cortex-kernels-macos-x64.dylib"
    if change == "missing":
        library.unlink()
    elif change == "damaged":
        library.write_text("", encoding="utf-8")
    else:
        compile_kernels.stamp_of(library).write_text("0 0\n", encoding="utf-8")
    with pytest.raises(ReleaseError, match=r"kernels of macos-x64 are .*compile_kernels\.py --all"):
        wheel.make(tmp_path / "wheel", tree)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


@pytest.mark.parametrize(
    ("pattern", "lacks"),
    [
        ("vocabularies/cl100k_base.zlib", "vocabularies/cl100k_base.zlib"),
        ("kernels/lib/cortex-kernels-*.dylib", "kernels/lib/cortex-kernels-macos-arm64.dylib"),
    ],
)
def test_a_wheel_that_lacks_a_file_is_refused(
    tree: Path, tmp_path: Path, pattern: str, lacks: str
) -> None:
    project = tree / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    assert text.count(pattern) == 1
    project.write_text(text.replace(pattern, "nothing"), encoding="utf-8")
    with pytest.raises(ReleaseError, match=rf"lacks \['cortex_embed/{lacks}'"):
        wheel.make(tmp_path / "wheel", tree)


def test_a_library_of_no_target_is_refused(tree: Path, tmp_path: Path) -> None:
    (tree / LIB / "cortex-kernels-linux-riscv64.so").touch()
    with pytest.raises(
        ReleaseError, match=r"has \['.*/cortex-kernels-linux-riscv64\.so'\] too much"
    ):
        wheel.make(tmp_path / "wheel", tree)


def test_a_wheel_with_a_file_too_many_is_refused(made: Path, tmp_path: Path) -> None:
    more = Path(shutil.copy(made, tmp_path / made.name))
    with zipfile.ZipFile(more, "a") as archive:
        archive.writestr("cortex_embed/embedded/model.onnx", b"weights")
    with pytest.raises(ReleaseError, match=r"has \['cortex_embed/embedded/model.onnx'\] too much"):
        wheel.complete(more, wheel.ROOT / "app")


def test_an_sdist_that_builds_another_wheel_is_refused(tree: Path, tmp_path: Path) -> None:
    project = tree / "pyproject.toml"
    text = project.read_text(encoding="utf-8")
    sdist = '[tool.hatch.build.targets.sdist]\nexclude = ["app/cortex_embed/py.typed"]'
    text = text.replace("[tool.hatch.build.targets.sdist]", sdist)
    project.write_text(text, encoding="utf-8")
    with pytest.raises(ReleaseError, match="builds another"):
        wheel.make(tmp_path / "wheel", tree)


def test_what_hatchling_says_is_passed_on(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "LICENSE").unlink()
    (tree / "README.md").unlink()
    with pytest.raises(ReleaseError, match=r"(?s)hatchling cannot build.*README\.md"):
        wheel.make(tmp_path / "wheel", tree)
    # A checkout in which tests run has one target's library, not all.
    monkeypatch.setattr(wheel, "refuse_other_kernels", lambda _: None)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert wheel.main(["--out", str(tmp_path / "wheel")]) == 1
    assert "SOURCE_DATE_EPOCH" in capsys.readouterr().err


def test_every_link_of_the_readme_works_on_pypi() -> None:
    readme = (wheel.ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"(?s)```.*?```", "", readme))
    assert links
    assert [link for link in links if not link.startswith(("https://", "http://", "#"))] == []
