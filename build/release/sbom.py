"""The CycloneDX SBOM of one target: what its full asset holds, file by file.

Made of the inventory and of the finished directory form, whose files are hashed as they are
(signed, where that was done). It must never have a component without a file or module, nor a
date or number that is not of the content.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

import source_date
from release import ReleaseError
from release.inventory import OURS, hashes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cyclonedx.model.component import Component as Part

    from release.inventory import Component, Inventory

REHEARSAL = "cortex-embed:rehearsal"
MODULES = "cortex-embed:python-modules"
TARGET = "cortex-embed:target"
_SOURCE = "cortex-embed:source"
_INSIDE = "cortex-embed:contained-in"
_UNPROVEN = "cortex-embed:crates-not-seen"


def document(
    inventory: Inventory, onedir: Path, *, target: str, version: str, rehearsal: bool
) -> str:
    """The SBOM as JSON, valid against CycloneDX 1.6. Raises ReleaseError where it would not be,
    or where the files on the disk are not those that were frozen."""
    from cyclonedx.model import Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.output.json import JsonV1Dot6

    found = hashes(onedir)
    listed = set().union(*(c.files for c in inventory.components.values()))
    odd = sorted(set(found) ^ listed)
    if odd:
        raise ReleaseError(f"{onedir} and what was frozen into it differ: {', '.join(odd)}.")
    bom = Bom()
    own = inventory.components[OURS]
    bom.metadata.timestamp = source_date.moment()
    bom.metadata.component = _part(own, found, onedir)
    bom.metadata.component.version = version
    if rehearsal:
        bom.metadata.properties.add(Property(name=REHEARSAL, value="this is no release"))
    bom.metadata.properties.add(Property(name=TARGET, value=target))
    parts = [_part(c, found, onedir) for c in inventory.components.values() if c is not own]
    bom.components.update(parts)
    bom.register_dependency(bom.metadata.component, parts)
    # The number comes from the content, so that the same bundle has the same one.
    bom.serial_number = uuid5(NAMESPACE_URL, _without_number(JsonV1Dot6(bom).output_as_string()))
    text = str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"
    wrong = validate(text)
    if wrong:
        raise ReleaseError(f"the SBOM is not CycloneDX 1.6: {wrong}")
    return text


def validate(text: str) -> str | None:
    """None, or what CycloneDX 1.6's JSON schema has against `text`."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if wrong is None else repr(wrong)


def _without_number(text: str) -> str:
    content = json.loads(text)
    del content["serialNumber"]
    return json.dumps(content, sort_keys=True)


def _part(component: Component, found: dict[str, str], onedir: Path) -> Part:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component as Part
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    part = Part(
        type=ComponentType(component.kind),
        name=component.name,
        version=component.version,
        bom_ref=component.name,
        purl=PackageURL.from_string(component.purl) if component.purl else None,
        licenses=[_licence(component.licence)],
    )
    if component.lock:
        part.external_references.add(_locked(component))
    for name, digest in component.sources.items():
        part.properties.add(Property(name=_SOURCE, value=f"{name} SHA-256 {digest}"))
    if component.modules:
        part.properties.add(Property(name=MODULES, value=" ".join(sorted(component.modules))))
    for name in sorted(component.files):
        part.components.add(
            Part(
                type=ComponentType.FILE,
                name=name,
                bom_ref=f"{component.name}/{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=found[name])],
            )
        )
    crates, unseen = _crates(component, onedir)
    part.components.update(crates)
    if unseen:
        part.properties.add(Property(name=_UNPROVEN, value=" ".join(sorted(unseen))))
    return part


def _licence(stated: str) -> Any:
    """An SPDX expression where it is one, else a name."""
    from cyclonedx.factory.license import LicenseFactory

    return LicenseFactory().make_from_string(stated)


def _locked(component: Component) -> Any:
    """Where it was had from: the lock's hashes, of which one was the file that was installed."""
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashType, XsUri
    from cyclonedx.model import HashAlgorithm as Algorithm

    return ExternalReference(
        type=ExternalReferenceType.DISTRIBUTION,
        url=XsUri(f"https://pypi.org/project/{_package(component)}/{component.version}/#files"),
        comment="what requirements/release.lock admits, for all platforms",
        hashes=[HashType(alg=Algorithm.SHA_256, content=digest) for digest in component.lock],
    )


def _package(component: Component) -> str:
    match = re.match(r"pkg:pypi/([^@]+)@", component.purl or "")
    return match[1] if match else component.name


def _crates(component: Component, onedir: Path) -> tuple[list[Part], set[str]]:
    """Rust crates that are seen inside a component's libraries, and the names of the others.

    A compiled crate leaves the paths of its sources in messages (`rayon-core-1.13.0/src/…`), as a
    rule; what is used only while building leaves none. Only what is seen is called contained.
    """
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component as Part
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    inside = b"".join(_read(onedir, component.files)) if component.crates else b""
    seen, unseen = [], set()
    for crate in component.crates:
        label = f"{crate['name']}-{crate['version']}"
        if not re.search(re.escape(label.encode()) + rb"[/\\]", inside):
            unseen.add(label)
            continue
        seen.append(
            Part(
                type=ComponentType.LIBRARY,
                name=crate["name"],
                version=crate["version"],
                bom_ref=f"{component.name}/crate/{label}",
                purl=PackageURL("cargo", None, crate["name"], crate["version"]),
                licenses=[
                    _licence(c["expression"])
                    for c in crate.get("licenses", ())
                    if "expression" in c
                ],
                properties=[Property(name=_INSIDE, value=component.name)],
            )
        )
    return seen, unseen


def _read(onedir: Path, files: Iterable[str]) -> Iterable[bytes]:
    for name in sorted(files):
        yield (onedir / "_internal" / name).read_bytes()
