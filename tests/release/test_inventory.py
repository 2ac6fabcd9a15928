"""Every file of a bundle gets its owner, every owner its words; what has none stops a release.

Bundles in small, whose notes name files of the packages that are installed here. The whole one
is looked at by tests/rehearsal/test_assets.py.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.version import Version

from release import ReleaseError, inventory, licences, native, sbom
from release.inventory import Component, Inventory

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

STDLIB = Path(sysconfig.get_path("stdlib"))
Files = Sequence[tuple[str, str, str]]
Make = Callable[..., Inventory]


def installed(dist: str, end: str) -> str:
    """A file of an installed package."""
    return next(str(f.locate()) for f in metadata.files(dist) or () if str(f).endswith(end))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """`make(files=…, modules=…)`: the inventory of a bundle with these notes."""

    def bundle(files: Files = (), modules: Sequence[tuple[str, str]] = ()) -> Inventory:
        work = tmp_path / ".work"
        work.mkdir(exist_ok=True)
        base = [("base_library.zip", str(work / "base_library.zip"), "DATA")]
        contents = {
            "files": [*base, *files], "modules": modules, "bootloader": [], "bootstrap": [
                ["entry", str(inventory.ROOT / "specs" / "entry.py")],
            ],
        }  # fmt: skip
        (work / "contents.json").write_text(json.dumps(contents), encoding="utf-8")
        for dest, _, _ in [*base, *files]:
            path = tmp_path / "onedir" / "_internal" / dest
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.write_bytes(dest.encode())
        return Inventory(tmp_path)

    return bundle


def test_packages_by_their_records(make: Make) -> None:
    found = make(
        [("aiohttp/x.so", installed("aiohttp", "_http_writer.pyx"), "EXTENSION")],
        [("attr", installed("attrs", "attr/__init__.py")), ("json", str(STDLIB / "json.py"))],
    ).components
    aiohttp, attrs = found["aiohttp"], found["attrs"]
    assert aiohttp.files == {"aiohttp/x.so"}
    assert aiohttp.version == metadata.version("aiohttp")
    assert aiohttp.purl == f"pkg:pypi/aiohttp@{aiohttp.version}"
    assert any("llhttp" in name for name in aiohttp.texts)
    assert all(len(digest) == 64 for digest in aiohttp.lock)
    assert len(aiohttp.lock) > 10
    assert (attrs.files, attrs.modules, attrs.licence) == (set(), {"attr"}, "MIT")
    assert found["cpython"].modules == {"json"}
    assert found["cpython"].files == {"base_library.zip"}
    assert set(found) == {"aiohttp", "attrs", "cpython", "cortex-embed"}


def test_pyinstaller_is_there_as_its_bootloader_only(make: Make, tmp_path: Path) -> None:
    made = str(tmp_path / ".work" / "localpycs" / "struct.pyc")
    found = make(modules=[("struct", made), ("PYZ-00.pyz", str(tmp_path / ".work" / "PYZ-00.pyz"))])
    component = found.components[inventory.BOOTLOADER]
    assert component.modules == {"struct"}
    assert component.licence == "GPL-2.0-or-later WITH Bootloader-exception"
    assert "Bootloader Exception" in next(iter(component.texts.values()))


def test_our_own_files_are_the_application(make: Make) -> None:
    source = str(inventory.ROOT / "app" / "cortex_embed" / "cli.py")
    own = make(modules=[("cortex_embed.cli", source)]).components["cortex-embed"]
    assert own.kind == "application"
    assert own.modules == {"cortex_embed.cli"}


def test_the_model_and_the_vocabulary(make: Make, tmp_path: Path, tiny_cls: Artifact) -> None:
    shutil.copytree(tiny_cls.directory, tmp_path / ".work" / "model")
    graph = str(tmp_path / ".work" / "model" / "model.onnx")
    packed = str(inventory.ROOT / "app" / "cortex_embed" / "vocabularies" / "cl100k_base.zlib")
    found = make(
        [
            ("cortex_embed/embedded/model.onnx", graph, "DATA"),
            ("cortex_embed/vocabularies/cl100k_base.zlib", packed, "DATA"),
        ]
    ).components
    model = found["model"]
    assert model.kind == "machine-learning-model"
    assert (model.name, model.version) == (tiny_cls.spec.repo, tiny_cls.spec.revision)
    assert model.licence == "MIT"
    assert model.sources == tiny_cls.sources
    vocabulary = found["cl100k_base"]
    assert vocabulary.kind == "data"
    assert "2022 OpenAI" in vocabulary.texts["tiktoken"]


@pytest.mark.parametrize(
    ("system", "licence", "texts"),
    [
        ("linux", "MIT", ["Zig contributors"]),
        ("win32", "MIT AND ZPL-2.1", ["Zig contributors", "mingw-w64 project"]),
    ],
)
def test_the_kernels_are_ours_and_what_zig_links_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch, system: str, licence: str, texts: list[str]
) -> None:
    dest = "cortex_embed/kernels/lib/cortex-kernels-linux-x64.so"
    monkeypatch.setattr(sys, "platform", system)
    found = make([(dest, str(inventory.ROOT / "app" / dest), "BINARY")]).components
    assert found["cortex-embed"].files == {dest}
    linked = found["zig-compiler-rt"]
    assert linked.files == {dest}
    assert (linked.version, linked.licence) == (metadata.version("ziglang"), licence)
    assert len(linked.lock) > 5
    for words, text in zip(texts, linked.texts.values(), strict=True):
        assert words in text
    assert "zig-compiler-rt" not in make().components


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_of_what_they_lead_to(make: Make, tmp_path: Path) -> None:
    """Through a link to a directory too, as macOS' frameworks have them."""
    versions = tmp_path / "onedir" / "_internal" / "Python.framework" / "Versions"
    (versions / "3.13").mkdir(parents=True)
    (versions / "Current").symlink_to("3.13")
    found = make(
        [
            ("Python.framework/Versions/3.13/Python", "/nowhere/Python", "BINARY"),
            ("Python", "Python.framework/Versions/Current/Python", "SYMLINK"),
            ("Python.framework/Versions/Current", "3.13", "SYMLINK"),
        ]
    )
    files = {"base_library.zip", "Python", "Python.framework/Versions/3.13/Python"}
    assert found.components["cpython"].files == files
    assert set(inventory.hashes(tmp_path / "onedir")) == files


def test_a_link_that_leads_nowhere_stops(make: Make) -> None:
    with pytest.raises(ReleaseError, match=r"leads to x.libs/a.so, which is not in it"):
        make([("a.so", "x.libs/a.so", "SYMLINK")])


def test_a_file_of_nobody_stops(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"surprise.dat is in the bundle"):
        make([("surprise.dat", str(tmp_path / "surprise.dat"), "DATA")])


def test_a_bundle_without_notes_stops(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"was not made by build/freeze\.py"):
        Inventory(tmp_path)


def test_another_version_than_the_lock_s_stops(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = dict(inventory.locked())
    rows["attrs"] = ("1.0", ())
    monkeypatch.setattr(inventory, "locked", lambda: rows)
    with pytest.raises(ReleaseError, match=r"attrs .* is in the bundle, release.lock has 1.0"):
        make(modules=[("attr", installed("attrs", "attr/__init__.py"))])


def test_what_is_linked_into_a_module_is_a_part(make: Make) -> None:
    dest = "python3.13/lib-dynload/pyexpat.cpython-313.so"
    found = make([(dest, str(STDLIB / "lib-dynload" / "pyexpat.so"), "EXTENSION")]).components
    assert found["expat"].files == {dest}
    assert Version(found["expat"].version) > Version("2")
    assert dest in found["cpython"].files
    assert "zlib" not in found


def test_what_is_linked_into_the_interpreter_is_a_part(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As uv's Pythons have it: no module is a file, and OpenSSL is in libpython."""
    monkeypatch.setattr(sys, "builtin_module_names", ("_ssl", "zlib", "_bz2"))
    dest = "libpython3.13.so.1.0"
    found = make([(dest, f"{sys.base_prefix}/lib/{dest}", "BINARY")]).components
    assert {n for n, c in found.items() if c.files == {dest}} == {"openssl", "zlib", "bzip2"}
    assert "Apache License" in next(iter(found["openssl"].texts.values()))


def test_a_library_that_is_there_is_not_said_to_be_linked(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = native.Origin("1.3", "pkg:deb/debian/zlib1g@1.3", {"Debian": "terms"})
    monkeypatch.setattr(native, "origin", lambda *_: given)
    module = ("python3.13/lib-dynload/zlib.so", str(STDLIB / "lib-dynload" / "zlib.so"), "EXT")
    found = make([module, ("libz.so.1", "/usr/lib/libz.so.1", "BINARY")]).components
    assert found["zlib"].files == {"libz.so.1"}
    assert found["zlib"].version == "1.3"


# Licences


def component(name: str, **facts: Any) -> Component:
    return Component("library", name, "1", "MIT", **({"texts": {"L": f"{name}'s"}} | facts))


def test_the_licences_file_has_every_text_once() -> None:
    shared = {"LICENSE": "the same words\n"}
    crate = {"name": "serde", "version": "1.0", "licenses": [{"expression": "MIT OR Apache-2.0"}]}
    text = licences.text(
        [
            component("b", texts=shared),
            component("a", texts=shared),
            component("c", crates=(crate,)),
            component("cortex-embed", texts={}),
        ]
    )
    assert text.count("the same words") == 1
    assert "(LICENSE: the same text as under a, above)" in text
    assert "  serde 1.0: MIT OR Apache-2.0" in text
    assert "  a 1: MIT\n  b 1: MIT\n  c 1: MIT\n" in text


@pytest.mark.parametrize("texts", [{}, {"LICENSE": " \n"}])
def test_a_component_without_a_text_is_an_error(texts: dict[str, str]) -> None:
    with pytest.raises(ReleaseError, match="no licence text was found of b 1"):
        licences.text([component("a"), component("b", texts=texts)])


def test_a_crate_without_a_licence_is_an_error() -> None:
    with pytest.raises(ReleaseError, match=r"crate serde 1.0 states no licence"):
        licences.text([component("a", crates=({"name": "serde", "version": "1.0"},))])


# SBOM


@pytest.fixture
def onedir(tmp_path: Path) -> Path:
    internal = tmp_path / "onedir" / "_internal"
    internal.mkdir(parents=True)
    (internal / "a.so").write_bytes(b"/registry/src/serde-1.0.0/src/de.rs")
    return tmp_path / "onedir"


def bill(onedir: Path, **facts: Any) -> str:
    crates = tuple({"name": n, "version": "1.0.0", "licenses": [{"expression": "MIT"}],
                    "purl": f"pkg:cargo/{n}@1.0.0"} for n in ("serde", "cc"))  # fmt: skip
    parts = {
        "cortex-embed": Component("application", "cortex-embed", "1", "MIT"),
        "a": component("a", files={"a.so"}, modules={"a"}, lock=("0" * 64,), crates=crates,
                       purl="pkg:pypi/a@1") ,
    }  # fmt: skip
    given: dict[str, Any] = {"target": "linux-x64", "version": "1", "rehearsal": False}
    return sbom.document(parts, onedir, **(given | facts))


def test_an_sbom_is_valid_and_says_what_is_inside(
    onedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    text = bill(onedir)
    assert sbom.validate(text) is None
    document = json.loads(text)
    assert document["specVersion"] == "1.6"
    assert document["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    (part,) = document["components"]
    kinds = {c["name"]: c for c in part["components"]}
    assert set(kinds) == {"a.so", "serde"}
    assert kinds["a.so"]["hashes"][0]["content"] == inventory.hashes(onedir)["a.so"]
    assert kinds["serde"]["purl"] == "pkg:cargo/serde@1.0.0"
    said = {p["name"]: p["value"] for p in part["properties"]}
    assert said["cortex-embed:crates-not-seen"] == "cc-1.0.0"
    assert said[sbom.MODULES] == "a"
    (where,) = part["externalReferences"]
    assert where["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]


def test_the_same_content_has_the_same_number(
    onedir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one = bill(onedir)
    assert bill(onedir) == one
    other = json.loads(bill(onedir, version="2"))
    assert other["serialNumber"] != json.loads(one)["serialNumber"]


def test_a_rehearsal_s_says_so(onedir: Path) -> None:
    names = [p["name"] for p in json.loads(bill(onedir, rehearsal=True))["metadata"]["properties"]]
    assert sbom.REHEARSAL in names
    assert sbom.REHEARSAL not in bill(onedir)


def test_a_file_that_nobody_owns_stops(onedir: Path) -> None:
    (onedir / "_internal" / "more.so").touch()
    with pytest.raises(ReleaseError, match=r"differ: more.so"):
        bill(onedir)
