"""What the environment says to libraries and to child processes, and what we say to them.

With `config` the only place that touches `os.environ`. It must never decide a setting of ours
(the table in `config` does), and nothing here may be imported that costs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.parsers import path

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENV_PREFIX = "CORTEX_EMBED_"
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
"""What huggingface_hub takes for true (constants.py)."""
_NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"),
)


def prepare_runtime_environment() -> None:
    """Set what native libraries read from the environment when they are loaded.

    onnxruntime's wheels upload usage data unless ORT_DISABLE_TELEMETRY is set before the
    library is loaded (microsoft/onnxruntime#27379); the tokenizers library starts one
    thread per core unless told not to. Call before importing either.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def child_environment(extra: Mapping[str, str], without: Iterable[str] = ()) -> dict[str, str]:
    """What a server that outlives us gets: ours and `extra`, but not the settings in `without`."""
    dropped = {ENV_PREFIX + name.upper() for name in without}
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    if getattr(sys, "frozen", False):
        # Or it would run from our temp directory, which goes when we do (PyInstaller >= 6.10).
        environment["PYINSTALLER_RESET_ENVIRONMENT"] = "1"
        environment.pop("LD_LIBRARY_PATH", None)
        original = environment.pop("LD_LIBRARY_PATH_ORIG", None)
        if original is not None:
            environment["LD_LIBRARY_PATH"] = original
    return environment | dict(extra)


def unpack_dir() -> Path:
    """Where a one-file executable keeps its unpacked libraries: a cache, safe to delete."""
    given = os.environ.get(ENV_PREFIX + "UNPACK_DIR")
    if given:
        return path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("cortex-embed", appauthor=False)) / "unpacked"


def hub_is_offline() -> bool:
    """Whether the person asked Hugging Face's libraries not to use the network."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in _TRUE


def prepare_hub_environment() -> None:
    """Set what huggingface_hub reads once, when it is imported.

    With telemetry on it would ask the hub for a list of programs and name the one it runs in;
    its xet client is a library of 13 MB that no executable of ours carries. What the person has
    set (HF_ENDPOINT, HF_TOKEN, HF_HOME, proxies, SSL_CERT_FILE) stays as it is; whether to be
    offline was decided by `--offline`, which has heard HF_HUB_OFFLINE.
    """
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "0"


def network_environment() -> dict[str, str]:
    """What the environment says of proxies, mirrors and trust, without any credential."""
    found = {}
    for name in _NETWORK:
        value = os.environ.get(name) or os.environ.get(name.lower())
        if value:
            secret = name == "HF_TOKEN"
            found[name] = "set, not shown" if secret else _without_credentials(value)
    return found


def _without_credentials(address: str) -> str:
    """`http://user:secret@host` as `http://…@host`."""
    before, at, host = address.rpartition("@")
    if not at:
        return address
    scheme, colons, _ = before.partition("://")
    return f"{scheme}{colons}…@{host}" if colons else f"…@{host}"
