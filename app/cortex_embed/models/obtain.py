"""From a catalogue entry to an artifact in the data directory, by whatever way is shortest.

A file is taken from what an earlier attempt left, from what is installed, from Hugging Face's
cache, or from the hub: always verified, always where all processes can see it whole or not at
all. It must never fetch what is there, nor keep what is not what the catalogue says.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from cortex_embed.errors import DownloadError, ModelFileError
from cortex_embed.models import faults
from cortex_embed.models.artifact import (
    MANIFEST,
    TOKENIZER,
    Artifact,
    FileFact,
    fact_of,
    load_artifact,
)
from cortex_embed.models.install import Place, link_or_copy, plain
from cortex_embed.models.onnx_files import external_files
from cortex_embed.models.repository import Description, manifest, with_fingerprints

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cortex_embed.models.catalogue import CatalogueEntry, SourceFile
    from cortex_embed.models.hub import Hub

_EVERY = 0.25
"""Seconds between two reports of progress."""
_SPARE = 16 * 2**20
"""Bytes that a disk must keep free beyond the download."""
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the fetching of a model is: `done` of `total` bytes, of all its files together."""

    phase: Literal["download", "verify"]
    model: str
    file: str
    done: int
    total: int


class Report(Protocol):
    """Who is told. Both methods return at once, and are called in the thread that fetches."""

    def said(self, line: str) -> None:
        """Something that a person should know."""

    def progressed(self, progress: Progress) -> None:
        """At most four a second, and one at the end of each phase."""


def permit(entry: CatalogueEntry, *, accept_terms: bool) -> None:
    """Raise DownloadError where the model cannot, or must not yet, be fetched."""
    model = entry.spec.id
    if entry.unavailable:
        raise DownloadError(
            f"{model} cannot be downloaded: {entry.unavailable}. `cortex-embed models import` "
            "takes a directory with an ONNX export of it.",
            code="unavailable",
        )
    if entry.terms and not accept_terms:
        raise DownloadError(
            f"{model} has terms of its own: {entry.terms}. Read them; if you agree, say so: "
            f"`cortex-embed models pull {model} --accept-terms`.",
            code="terms",
        )


def obtain(
    entry: CatalogueEntry,
    root: Path,
    *,
    offline: bool,
    stall_timeout: float,
    accept_terms: bool,
    report: Report,
) -> Artifact:
    """The artifact of `entry` under `root`, fetched or mended if need be, every byte verified.

    Raises DownloadError, UsageError; ModelFileError where what was fetched cannot be a model.
    """
    place = Place(root, plain(entry.spec.id, "Change it in your catalogue."), entry.spec.revision)

    def waiting(who: str) -> None:
        report.said(f"{place.model} is being fetched by {who}: waiting for it.")

    try:
        with place.locked(waiting):
            files = _Files(entry, place, report, offline=offline, stall_timeout=stall_timeout)
            return files.gathered(accept_terms=accept_terms)
    except OSError as why:
        raise faults.of_disk(why, root) from None


def finish(
    place: Place,
    description: Description,
    facts: Mapping[str, FileFact],
    sources: Mapping[str, str],
) -> Artifact:
    """Make an artifact of the staged files, put it in its place, remove what else was staged.

    Raises OSError, ModelFileError.
    """
    staging = place.staging
    graph = staging / description.graph.rpartition("/")[2]
    if missing := sorted(set(external_files(graph)) - set(facts)):
        raise ModelFileError(
            f"{graph.name} reads {missing[0]} beside it, which was not named: add it to `onnx` "
            "and `files` in the catalogue."
        )
    for path in staging.iterdir():
        if path.name not in facts:
            path.unlink()
    document = with_fingerprints(
        staging, manifest(staging, description, sources=sources, facts=facts)
    )
    (staging / MANIFEST).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    load_artifact(staging)
    place.publish()
    return load_artifact(place.final)


@dataclass
class _Files:
    """The files of one model on their way. Used once, with the lock held."""

    entry: CatalogueEntry
    place: Place
    report: Report
    offline: bool
    stall_timeout: float
    found: dict[str, tuple[Path, FileFact]] = field(default_factory=dict)
    """By name: where an intact file is, and what it is."""
    expected: dict[SourceFile, str] = field(default_factory=dict)
    """SHA-256 by the catalogue, else what was seen at first use; empty for none."""

    def gathered(self, *, accept_terms: bool) -> Artifact:
        """Everything, in its place."""
        installed = self._installed()
        for file in self.entry.run_files:
            seen = installed.files.get(self.name(file)) if installed else None
            self.expected[file] = file.sha256 or (seen.sha256 if seen else "")
        missing = [file for file in self.entry.run_files if not self._is_here(file)]
        if not missing and installed is not None and self._is_current(installed):
            self.place.forget()
            return installed
        if missing:
            permit(self.entry, accept_terms=accept_terms)
        self.place.staging.mkdir(parents=True, exist_ok=True)
        for name, (path, _) in self.found.items():
            if path.parent != self.place.staging:
                link_or_copy(path, self.place.staging / name)
        if missing:
            self._download(missing)
        facts = {name: fact for name, (_, fact) in self.found.items()}
        return finish(self.place, self._description, facts, self._sources)

    @property
    def _description(self) -> Description:
        entry = self.entry
        return Description(entry.spec, entry.onnx[0], entry.onnx_precision, entry.alone)

    @property
    def _sources(self) -> dict[str, str]:
        return {file.path: self.found[self.name(file)][1].sha256 for file in self.entry.run_files}

    def name(self, file: SourceFile) -> str:
        """What `file` is called where all files of the model lie side by side."""
        return TOKENIZER if file.path == self.entry.tokenizer else file.name

    def trust(self, file: SourceFile, fact: FileFact) -> None:
        """Say that nothing vouches for `file` but where it came from."""
        self.report.said(
            f"{file.path}: nobody has published its hash; trusted on first use, and recorded: "
            f"SHA-256 {fact.sha256}"
        )

    def _installed(self) -> Artifact | None:
        """What is in the place already, if it is of this revision and its manifest is readable."""
        try:
            artifact = load_artifact(self.place.final)
        except ModelFileError:
            if self.place.final.exists():
                self.report.said(f"{self.place.final} is damaged: fetching it again.")
            return None
        return artifact if artifact.spec.revision == self.entry.spec.revision else None

    def _is_current(self, installed: Artifact) -> bool:
        """Whether its manifest says what the catalogue says now."""
        facts = {name: fact for name, (_, fact) in self.found.items()}
        document = with_fingerprints(
            self.place.final,
            manifest(self.place.final, self._description, sources=self._sources, facts=facts),
        )
        return document == installed.manifest

    def _is_here(self, file: SourceFile) -> bool:
        """Whether an intact copy is on this disk; where it is goes to `found`."""
        name, expected = self.name(file), self.expected[file]
        places = [self.place.staging / name, self.place.final / name]
        for path in places if expected else ():
            if path.is_file():
                fact = fact_of(path)
                if fact.sha256 == expected:
                    self.found[name] = (path, fact)
                    return True
                self.report.said(f"{path} is damaged: fetching it again.")
        return self._is_cached(file, expected)

    def _is_cached(self, file: SourceFile, expected: str) -> bool:
        from cortex_embed.models.hub import cached

        path = cached(file)
        if path is None:
            return False
        try:
            fact = fact_of(path)
        except OSError:
            return False
        if expected and fact.sha256 != expected:
            self.report.said(f"{path} is not what it should be (SHA-256 {fact.sha256}): not used.")
            return False
        self.report.said(f"{file.path}: found in Hugging Face's cache.")
        if not expected:
            self.trust(file, fact)
        self.found[self.name(file)] = (path, fact)
        return True

    def _download(self, files: list[SourceFile]) -> None:
        if self.offline:
            raise DownloadError(
                f"{self.place.model} is not on this machine, and --offline (or HF_HUB_OFFLINE) "
                f"forbids to fetch it. Missing: {', '.join(f.path for f in files)} of "
                f"{self.entry.spec.repo}. Pull it on a machine with a network, and bring "
                f"{self.place.final} along for `cortex-embed models import`.",
                code="offline",
            )
        from cortex_embed.models.hub import Hub

        hub = Hub(stall_timeout=self.stall_timeout, say=self.report.said)
        try:
            self._announce(files, hub.host)
            _Download(self, hub, files).run()
        finally:
            hub.close()

    def _announce(self, files: list[SourceFile], host: str) -> None:
        """What comes, from where, and under which licence: before the first byte of it."""
        entry = self.entry
        size = sum(file.size or 0 for file in files)
        least = "at least " if any(file.size is None for file in files) else ""
        shown = f"{least}{size / 1e6:,.1f} MB"
        repos = " and ".join(sorted({f"{f.repo} @ {f.revision[:_SHOWN]}" for f in files}))
        terms = f" ({entry.terms})" if entry.terms else ""
        remark = f" {entry.remark[0].upper()}{entry.remark[1:]}." if entry.remark else ""
        self.report.said(
            f"Fetching {entry.spec.id}: {shown} from {repos} on {host}. "
            f"Licence: {entry.spec.licence}{terms}.{remark}"
        )


class _Download:
    """The part of the work that needs the network."""

    def __init__(self, files: _Files, hub: Hub, missing: list[SourceFile]) -> None:
        self._files = files
        self._hub = hub
        self._missing = missing
        self._done = 0
        self._total = 0
        self._told = 0.0

    def run(self) -> None:
        """Fetch and verify every file. Raises DownloadError, OSError."""
        sizes, hashes = {}, {}
        for file in self._missing:
            remote = self._hub.look(file)
            if file.size is not None and remote.size not in (None, file.size):
                raise DownloadError(
                    f"{file.path} of {file.repo} has {remote.size:,} bytes on {self._hub.host}; "
                    f"the catalogue says {file.size:,}. It is another file, or a mirror is wrong.",
                    code="wrong_size",
                )
            sizes[file] = file.size or remote.size
            hashes[file] = self._files.expected[file] or remote.sha256
        self._total = sum(size or 0 for size in sizes.values())
        self._require_space(self._total - sum(self._held(file) for file in self._missing))
        for file in self._missing:
            fact = self._verified(file, sizes[file], hashes[file])
            if not self._files.expected[file]:
                self._files.trust(file, fact)
            path = self._path(file)
            self._part(file).replace(path)
            self._files.found[path.name] = (path, fact)
            self._done += fact.size

    def _path(self, file: SourceFile) -> Path:
        return self._files.place.staging / self._files.name(file)

    def _part(self, file: SourceFile) -> Path:
        path = self._path(file)
        return path.with_name(f"{path.name}.part")

    def _held(self, file: SourceFile) -> int:
        part = self._part(file)
        return part.stat().st_size if part.exists() else 0

    def _require_space(self, needed: int) -> None:
        place = self._files.place
        free = shutil.disk_usage(place.staging).free
        if free < needed + _SPARE:
            raise faults.too_small(place.root, needed + _SPARE, free)

    def _verified(self, file: SourceFile, size: int | None, sha256: str) -> FileFact:
        """What was fetched into the part; where it is wrong, once more from the beginning."""
        fact = self._fetched(file, size)
        if sha256 and fact.sha256 != sha256:
            self._files.report.said(
                f"{file.path} came with SHA-256 {fact.sha256}, expected {sha256}: fetching it "
                "again."
            )
            self._part(file).unlink()
            fact = self._fetched(file, size)
        if not sha256 or fact.sha256 == sha256:
            return fact
        self._part(file).unlink()
        raise DownloadError(
            f"{file.path} of {file.repo} came twice with SHA-256 {fact.sha256}, expected {sha256}. "
            "It is not the file that was published: a proxy or a mirror changes it, or it was "
            "replaced. It was not kept.",
            code="wrong_content",
        )

    def _fetched(self, file: SourceFile, size: int | None) -> FileFact:
        part = self._part(file)
        self._hub.fetch(file, part, size, lambda done: self._tell("download", file, done))
        self._tell("verify", file, part.stat().st_size, at_once=True)
        return fact_of(part)

    def _tell(
        self,
        phase: Literal["download", "verify"],
        file: SourceFile,
        done: int,
        *,
        at_once: bool = False,
    ) -> None:
        now = time.monotonic()
        if at_once or now - self._told >= _EVERY:
            self._told = now
            total = max(self._total, self._done + done)
            model = self._files.place.model
            self._files.report.progressed(
                Progress(phase, model, file.path, self._done + done, total)
            )
