"""Ollama's view of the models: what is there, what is loaded, what one is, and pulling one.

Source: `api/types.go` and `server/routes.go` of https://github.com/ollama/ollama (0018813). Clients
choose a model and switch features on by these, so nothing here may be made up: what the manifest
does not say is left empty.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import stored_as
from cortex_embed.wire import decoding
from cortex_embed.wire.ollama import named

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import ModelSpec

# The Ollama whose formats these are. Clients compare it before they use an endpoint or a field, so
# it must never be our own version.
VERSION = "0.33.0"
# Loaded for as long as the server runs; a date that every client can hold, and that `ollama ps`
# shows as "Forever".
NEVER = "2200-01-01T00:00:00Z"
_QUANTIZATION = {"fp32": "F32", "int16": "I16", "int8": "I8"}
_POOLING = {"mean": 1, "cls": 2, "last_token": 3}  # llama.cpp's LLAMA_POOLING_TYPE_*


class Served(Protocol):
    """What is told of a model: `service.ServedModel`, which this module must not import."""

    @property
    def spec(self) -> ModelSpec: ...
    @property
    def created(self) -> int: ...
    @property
    def facts(self) -> dict[str, Any]: ...
    @property
    def fingerprint(self) -> str: ...


class OllamaModelRequest(msgspec.Struct):
    """Body of a request about one model. Unknown fields are ignored; null means not given."""

    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    name: Annotated[str | None, Meta(description="the same, as older clients spell it")] = None


class OllamaPullRequest(OllamaModelRequest):
    """Body of POST /api/pull."""

    stream: Annotated[
        bool | None, Meta(description="false for one object, true (the default) for lines")
    ] = None


class OllamaDetails(msgspec.Struct):
    """What kind of model it is. An empty string is for what is not known."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaModel(msgspec.Struct):
    """A name under which a model is served. `size` is in bytes, of its files."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


class OllamaModels(msgspec.Struct):
    """Body of GET /api/tags."""

    models: list[OllamaModel]


class OllamaLoadedModel(msgspec.Struct):
    """A model in memory. `context_length` is in tokens."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    expires_at: str
    size_vram: int
    context_length: int


class OllamaLoadedModels(msgspec.Struct):
    """Body of GET /api/ps."""

    models: list[OllamaLoadedModel]


class OllamaShown(msgspec.Struct):
    """Body of a 200 to POST /api/show. `model_info` has the keys of a GGUF file."""

    license: str
    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, str | int]
    capabilities: list[str]
    modified_at: str


class OllamaVersion(msgspec.Struct):
    """Body of GET /api/version."""

    version: str


class OllamaProgress(msgspec.Struct, omit_defaults=True):
    """A line of the reply to POST /api/pull; the last one's `status` is "success"."""

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None


_model_request = msgspec.json.Decoder(OllamaModelRequest)
_pull_request = msgspec.json.Decoder(OllamaPullRequest)


def decode_model(body: bytes, *, served: str) -> str:
    """The model that a request is about. Raises InvalidRequestError."""
    asked = decoding.decode(_model_request, body, example=_example(served))
    return named(asked.model or asked.name, served)


def decode_pull(body: bytes, *, served: str) -> tuple[str, bool]:
    """The model to pull, and whether to stream the progress. Raises InvalidRequestError."""
    asked = decoding.decode(_pull_request, body, example=_example(served))
    return named(asked.model or asked.name, served), asked.stream is not False


def encode_tags(models: Sequence[Served]) -> bytes:
    """Body of GET /api/tags: every name of every model.

    Clients look their own spelling up here (LangChain's `validate_model_on_init` does), so an
    alias is a row of its own, as `ollama cp` would have made it.
    """
    rows = [
        OllamaModel(
            name=name,
            model=name,
            modified_at=_timestamp(model.created),
            size=_size(model),
            digest=_digest(model),
            details=_details(model),
        )
        for model in models
        for name in dict.fromkeys(map(_tagged, (model.spec.id, *model.spec.aliases)))
    ]
    return msgspec.json.encode(OllamaModels(rows))


def encode_loaded(models: Sequence[Served]) -> bytes:
    """Body of GET /api/ps, of the models that are in memory."""
    rows = [
        OllamaLoadedModel(
            name=_tagged(model.spec.id),
            model=_tagged(model.spec.id),
            size=_size(model),
            digest=_digest(model),
            details=_details(model),
            expires_at=NEVER,
            size_vram=0,
            context_length=model.spec.max_tokens,
        )
        for model in models
    ]
    return msgspec.json.encode(OllamaLoadedModels(rows))


def encode_model(model: Served) -> bytes:
    """Body of a 200 to POST /api/show."""
    spec = model.spec
    info: dict[str, str | int] = {
        "general.architecture": spec.family,
        f"{spec.family}.context_length": spec.max_tokens,
        f"{spec.family}.embedding_length": spec.dimensions,
        f"{spec.family}.pooling_type": _POOLING[spec.pooling],
    }
    if "parameters" in model.facts:
        info["general.parameter_count"] = model.facts["parameters"]
    return msgspec.json.encode(
        OllamaShown(
            license=spec.licence,
            modelfile="",
            parameters="",
            template="",
            details=_details(model),
            model_info=info,
            capabilities=["embedding"],
            modified_at=_timestamp(model.created),
        )
    )


def encode_version() -> bytes:
    """Body of GET /api/version."""
    return orjson.dumps({"version": VERSION})


def encode_pulled(model: Served, *, stream: bool) -> bytes:
    """Body of a 200 to POST /api/pull: the model is here, so every file of it is complete."""
    lines = [OllamaProgress("success")]
    if stream:
        pulled = [
            OllamaProgress(f"pulling {digest[:12]}", f"sha256:{digest}", size, size)
            for digest, size in _files(model)
        ]
        before = [OllamaProgress("pulling manifest"), *pulled]
        lines = [
            *before,
            OllamaProgress("verifying sha256 digest"),
            OllamaProgress("writing manifest"),
            *lines,
        ]
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def _example(served: str) -> str:
    return '{"model": "%s"}' % served  # noqa: UP031 - braces


def _tagged(name: str) -> str:
    """Ollama's names always have a tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _timestamp(seconds: int) -> str:
    """Unix seconds in RFC 3339."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _precision(model: Served) -> str:
    return str(model.facts.get("precision", "fp32"))


def _files(model: Served) -> list[tuple[str, int]]:
    """SHA-256 and bytes of each file of the model in its precision, the largest first."""
    unused = {
        graph[key]
        for graph in model.facts.get("graphs", ())
        if graph["precision"] != stored_as(_precision(model))
        for key in ("file", "data")
    }
    found = [
        (fact["sha256"], fact["size"])
        for name, fact in model.facts.get("files", {}).items()
        if name not in unused
    ]
    return sorted(found, key=lambda file: -file[1])


def _size(model: Served) -> int:
    return sum(size for _, size in _files(model))


def _digest(model: Served) -> str:
    """64 hexadecimal digits that change when the model's vectors do: of its fingerprint."""
    spec = model.spec
    identity = model.fingerprint or f"{spec.repo}@{spec.revision}"
    return hashlib.sha256(identity.encode()).hexdigest()


def _details(model: Served) -> OllamaDetails:
    family = model.spec.family
    return OllamaDetails(
        parent_model="",
        format="onnx",
        family=family,
        families=[family],
        parameter_size=_parameter_size(model.facts.get("parameters")),
        quantization_level=_QUANTIZATION.get(_precision(model), ""),
    )


def _parameter_size(parameters: int | None) -> str:
    """`23M`, `1.5B`: as Ollama writes it."""
    if parameters is None:
        return ""
    if parameters >= 1_000_000_000:
        return f"{parameters / 1e9:.1f}B"
    return f"{parameters / 1e6:.0f}M"
