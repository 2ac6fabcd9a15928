"""`cortex-embed fingerprint`: which vector space is this, and is that other one the same?

Two installations are compared by what one of them printed with `--json`, by a fingerprint alone,
or by asking a running server. It must never call two spaces equal that it could not compare.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import FingerprintMismatch, InputError

if TYPE_CHECKING:
    import argparse

    from cortex_embed.config import Settings

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """What is not a setting. `other` is a file, a fingerprint or a URL to compare with."""

    other: str | None = None
    as_json: bool = False

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        return cls(arguments.compare, arguments.json)


def run(settings: Settings, options: Options) -> int:
    """Print, or compare; the exit code.

    Raises FingerprintMismatch where they differ, InputError where the other cannot be read,
    ModelFileError.
    """
    own = _own(settings)
    if options.other is None:
        if options.as_json:
            print(json.dumps(own, indent=2, ensure_ascii=False))
        else:
            print(own["fingerprint"])
        return 0
    other = _other(options.other)
    differing = _differing(own, other)
    if options.as_json:
        print(json.dumps({"own": own, "other": other, "differing": differing}, indent=2))
    if own["fingerprint"] != other["fingerprint"]:
        raise FingerprintMismatch(
            f"{own['fingerprint']} here, {other['fingerprint']} in {options.other}: vectors of the "
            f"two must not be mixed. {_told(own, other, differing)}"
        )
    if not options.as_json:
        print(f"{own['fingerprint']}: the same vector space as {options.other}.")
    return 0


def _own(settings: Settings) -> dict[str, Any]:
    from cortex_embed.composition import locate_model
    from cortex_embed.models.fingerprint import parts

    found = locate_model(settings, next(iter(settings.model), None))
    model, artifact = found.model, found.artifact
    own = {"fingerprint": model.fingerprint, "model": model.spec.id}
    return own | {"parts": parts(artifact, found.choice.precision) if artifact else {}}


def _other(source: str) -> dict[str, Any]:
    """The other side: `fingerprint` always, `parts` where they are known."""
    if source.startswith("cx1:"):
        return {"fingerprint": source}
    if source.startswith(("http://", "https://")):
        document = _asked(source)
    else:
        try:
            text = sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8")
            document = json.loads(text)
        except (OSError, ValueError) as why:
            raise InputError(
                f"--compare {source}: cannot be read: {why}. Give a file that `cortex-embed "
                "fingerprint --json` wrote, a fingerprint (cx1:…), or the URL of a server."
            ) from None
    if not isinstance(document, dict) or not isinstance(document.get("fingerprint"), str):
        raise InputError(
            f"--compare {source}: it states no fingerprint. Give what `cortex-embed fingerprint "
            "--json` wrote, or the URL of a running cortex-embed."
        )
    return document


def _asked(url: str) -> Any:
    """`GET /model_info` of a server. Raises InputError."""
    from urllib.error import URLError
    from urllib.request import urlopen

    address = url.rstrip("/").removesuffix("/v1") + "/model_info"
    try:
        with urlopen(address, timeout=_SECONDS) as reply:  # noqa: S310 - http(s) only, see _other
            return json.load(reply)
    except (URLError, OSError, ValueError) as why:
        raise InputError(f"--compare {url}: {address} cannot be read: {why}.") from None


def _differing(own: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Names of the parts that differ; empty where the other side tells none."""
    mine, theirs = own["parts"], other.get("parts")
    if not isinstance(theirs, dict):
        return []
    return sorted(name for name in mine.keys() | theirs if mine.get(name) != theirs.get(name))


def _told(own: dict[str, Any], other: dict[str, Any], differing: list[str]) -> str:
    if not differing:
        return "What differs is not known: compare with a file of `fingerprint --json`."
    pairs = (f"{n}: {own['parts'].get(n)!r} / {other['parts'].get(n)!r}" for n in differing)
    return "They differ in " + "; ".join(pairs) + "."
