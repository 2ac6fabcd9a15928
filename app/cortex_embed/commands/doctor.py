"""`cortex-embed doctor`: what this installation sees of its machine, and what it would do.

For a person in doubt, and for the first comment of a bug report. It must never change anything,
never use the network, and never print a credential.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from cortex_embed import __version__
from cortex_embed.errors import EmbedError, NativeEngineError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cortex_embed.config import Settings
    from cortex_embed.providers.engines import Chosen

Verdict = Literal["ok", "note", "problem"]
_MARKS: dict[Verdict, str] = {"ok": " ", "note": "!", "problem": "x"}
_LITTLE_SPACE = 500 * 10**6


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was seen, and whether it is as it should be."""

    name: str
    value: str
    verdict: Verdict = "ok"


def run(settings: Settings, *, as_json: bool) -> int:
    """Print every finding; 0, or the exit code of the worst problem."""
    findings: list[Finding] = []
    code = 0
    for section in (_program, _processor, _limits, _model, _places, _network):
        try:
            findings.extend(section(settings))
        except EmbedError as error:
            findings.append(Finding(section.__name__.strip("_"), error.message, "problem"))
            code = code or error.exit_code
    if as_json:
        print(json.dumps([asdict(one) for one in findings], indent=2, ensure_ascii=False))
        return code
    width = max(len(one.name) for one in findings)
    for one in findings:
        print(f"{_MARKS[one.verdict]} {one.name.ljust(width)}  {one.value}")
    problems = sum(one.verdict == "problem" for one in findings)
    print(f"\n{problems or 'No'} problem{'' if problems == 1 else 's'} found.")
    return code


def _program(_settings: Settings) -> Iterator[Finding]:
    form = "one executable" if getattr(sys, "frozen", False) else f"Python {sys.executable}"
    yield Finding("cortex-embed", f"{__version__}, {form}")
    yield Finding("system", f"{platform.platform()}, {platform.machine()}")
    yield Finding("python", platform.python_version())
    from cortex_embed.config import prepare_runtime_environment

    prepare_runtime_environment()
    import numpy as np
    import onnxruntime as ort
    import tokenizers

    yield Finding(
        "libraries",
        f"onnxruntime {ort.__version__}, tokenizers {tokenizers.__version__}, "
        f"numpy {np.__version__}",
    )


def _processor(settings: Settings) -> Iterator[Finding]:
    from cortex_embed.providers import processor
    from cortex_embed.providers.cores import available_cores, cgroup_quota

    yield Finding("processor", processor.name())
    features = processor.features()
    known = [
        f
        for f in ("AVX2", "AVX512F", "AVX512VNNI", "avx_vnni", "AMX_INT8", "ASIMDDP")
        if f in features
    ]
    dot = processor.integer_dot_product(features)
    yield Finding("instruction sets", ", ".join(known) or "none of those that matter here")
    yield Finding("kernels", _kernels())
    without = "none: on ONNX Runtime, int8 gains little here"
    yield Finding("integer dot product", dot or without, "ok" if dot else "note")
    asked = f"{settings.threads}, as asked for" if settings.threads else str(available_cores())
    quota = cgroup_quota()
    limited = f"; the cgroup allows {quota:g} CPUs" if quota else ""
    yield Finding("threads", asked + limited)


def _kernels() -> str:
    """What the native engine has for this processor, the best first."""
    from cortex_embed.kernels import supported

    try:
        return ", ".join(supported()) or "none for this processor"
    except NativeEngineError as why:
        return f"none: {why.message}"


def _limits(settings: Settings) -> Iterator[Finding]:
    from cortex_embed.providers.memory import cgroup_limit, resident

    limit = cgroup_limit()
    used = resident()
    if limit is not None:
        yield Finding("memory limit", f"{limit / 2**20:,.0f} MiB, by the cgroup")
    if settings.max_memory:
        yield Finding("--max-memory", f"{settings.max_memory / 2**20:,.0f} MiB")
    if used is not None:
        yield Finding("memory now", f"{used / 2**20:,.0f} MiB, before a model is loaded")


def _model(settings: Settings) -> Iterator[Finding]:
    """The models that `serve` would serve, verified byte by byte."""
    for name in settings.model or (None,):
        yield from _one_model(settings, name)


def _one_model(settings: Settings, name: str | None) -> Iterator[Finding]:
    from cortex_embed.composition import locate_model

    missing = _to_download(settings, name)
    if missing is not None:
        yield missing
        return
    found = locate_model(settings, name)
    model, artifact = found.model, found.artifact
    spec = model.spec
    about = f"{spec.id}, {spec.dimensions} dimensions, {spec.max_tokens} tokens, licence "
    if artifact is None:
        yield Finding("model", f"{about}{spec.licence}; {model.origin}", "note")
    else:
        artifact.verify(found.choice.precision)
        yield Finding("model", f"{about}{spec.licence}; every file verified")
        graph = "our own export" if artifact.is_own else "the repository's own graph"
        yield Finding("graph", f"{graph}, in {artifact.directory}")
        yield Finding("precision", str(found.choice))
    if found.chosen is not None:
        yield from _engine(found.chosen)
    yield Finding("fingerprint", model.fingerprint)


def _engine(chosen: Chosen) -> Iterator[Finding]:
    """What `serve` would compute with, as far as to read the graph that it would run."""
    from cortex_embed.models.encoder_graph import read_encoder

    engine = chosen.engine
    if engine.name == "native":
        try:
            read_encoder(chosen.artifact.graph_for(chosen.precision))
        except NativeEngineError as why:
            verdict: Verdict = "problem" if engine.by_name else "note"
            yield Finding("engine", f"native, which cannot run this graph: {why.message}", verdict)
            return
    reason = f", {engine.reason}" if engine.reason else ""
    yield Finding("engine", f"{engine.name}{reason}")


def _to_download(settings: Settings, name: str | None) -> Finding | None:
    """What would have to be fetched first; None where the model is here, or is not known."""
    from cortex_embed.models.catalogue import DEFAULT_MODEL_ID, find
    from cortex_embed.models.store import embedded_dir, installed

    if name is None and embedded_dir().is_dir():
        return None
    entry = find(name or DEFAULT_MODEL_ID, settings.catalogue)
    if entry is None or any(
        artifact.spec.id == entry.spec.id
        for artifact in installed(settings.model_dir, on_broken=lambda _: None)
    ):
        return None
    files = ", ".join(f"{file.path} of {file.repo}" for file in entry.run_files)
    size = f"at least {entry.download_bytes / 1e6:,.0f} MB"
    what = entry.unavailable or f"not on this machine; to download ({size}): {files}"
    return Finding("model", f"{entry.spec.id}: {what}", "note")


def _places(settings: Settings) -> Iterator[Finding]:
    from cortex_embed.models.store import data_dir, embedded_dir, installed

    for name, place in (
        ("model directory", settings.model_dir),
        ("embedded model", embedded_dir()),
        ("data directory", data_dir()),
    ):
        if place is not None:
            there = place.is_dir()
            yield Finding(name, f"{place}{'' if there else ' (not there)'}", "ok")
    free = _free(data_dir())
    if free is not None:
        verdict: Verdict = "ok" if free > _LITTLE_SPACE else "note"
        yield Finding("free disk", f"{free / 1e9:,.1f} GB at the data directory", verdict)
    broken: list[str] = []
    models = installed(settings.model_dir, on_broken=lambda why: broken.append(why.message))
    yield Finding("installed", ", ".join(a.spec.id for a in models) or "none")
    for message in broken:
        yield Finding("damaged", message, "problem")


def _free(place: Path) -> int | None:
    """Bytes free where `place` is or would be made."""
    for one in (place, *place.parents):
        try:
            return shutil.disk_usage(one).free
        except OSError:
            continue
    return None


def _network(_settings: Settings) -> Iterator[Finding]:
    from cortex_embed.config import network_environment

    for name, value in network_environment().items():
        yield Finding(name, value)
