"""Which vector space an artifact's vectors live in, as a short word that two programs can compare.

Vectors of different fingerprints must never be mixed in one index; equal ones always may be. It
must depend on nothing but what the vectors depend on: no path, no name under which the model is
served, no platform, no choice between graphs that compute the same.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from cortex_embed.domain import stored_as

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

SCHEME = "cx1"
_WEIGHTS = "model.safetensors"
_NO_WEIGHTS = frozenset({"tokenizer.json", "config.json"})


def fingerprint(artifact: Artifact, precision: str) -> str:
    """`cx1:` and 16 hexadecimal digits, for vectors of `artifact` in `precision`."""
    return digest(parts(artifact, precision))


def fingerprints(artifact: Artifact) -> dict[str, str]:
    """The fingerprint of each precision that `artifact` has, for its manifest."""
    return {precision: fingerprint(artifact, precision) for precision in artifact.precisions}


def digest(named: dict[str, Any]) -> str:
    """The short word for what `parts`, or another provider's own, name."""
    text = json.dumps(named, sort_keys=True, ensure_ascii=False)
    return f"{SCHEME}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def parts(artifact: Artifact, precision: str) -> dict[str, Any]:
    """What the fingerprint is made of, by name: for telling how two differ."""
    spec = artifact.spec
    return {
        "weights": _weights(artifact, precision),
        "tokenizer": artifact.sources.get("tokenizer.json")
        or artifact.files["tokenizer.json"].sha256,
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "query_prefix": spec.query_prefix,
        "document_prefix": spec.document_prefix,
        "precision": precision,
        "max_tokens": spec.max_tokens,
    }


def _weights(artifact: Artifact, precision: str) -> str:
    """SHA-256 of the weights: the authors' file where they are used as they are, else ours."""
    stored = stored_as(precision)
    if stored == "fp32" and _WEIGHTS in artifact.sources:
        return artifact.sources[_WEIGHTS]
    data = {g.data for g in artifact.graphs if g.precision == stored}
    if not artifact.is_own:  # its weights may be in several files beside the graph
        data |= set(artifact.files) - _NO_WEIGHTS
    found = sorted(artifact.files[name].sha256 for name in data)
    return "+".join(found)
