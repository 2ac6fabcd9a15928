"""Where settings come from: flags beat the environment, which beats the file, which beats defaults.

The one place that touches `os.environ`: for our settings (the table is in `settings`), and for
what libraries and child processes read there. It must never import anything heavy.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import UsageError
from cortex_embed.parsers import path
from cortex_embed.settings import (
    ALL,
    DECIDED_BY_ENSURE,
    HOSTED,
    IDENTITY,
    LOOPBACK,
    NOT_FOR_A_SERVICE,
    SEVERAL_MODELS,
    Settings,
    rows,
    takes,
)
from cortex_embed.settings_rows import ENV_PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cortex_embed.settings_rows import Row

__all__ = [
    "ALL",
    "CONFIG_ENV",
    "DECIDED_BY_ENSURE",
    "ENV_PREFIX",
    "HOSTED",
    "IDENTITY",
    "LOOPBACK",
    "NOT_FOR_A_SERVICE",
    "SEVERAL_MODELS",
    "Settings",
    "account",
    "child_environment",
    "hub_is_offline",
    "keys",
    "load",
    "network_environment",
    "notify_socket",
    "prepare_hub_environment",
    "prepare_runtime_environment",
    "rows",
    "set_here",
    "takes",
    "token",
    "unpack_dir",
]

CONFIG_ENV = ENV_PREFIX + "CONFIG"
_TRUE = frozenset({"1", "ON", "YES", "TRUE"})
"""What huggingface_hub takes for true (constants.py)."""
_NOTIFY = "NOTIFY_SOCKET"
_NETWORK = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"),
)


def _parse(row: Row, raw: str | list[str], source: str) -> Any:
    try:
        return row.parse(raw)
    except ValueError as why:
        raise UsageError(f"{source}: {raw!r} {why}.") from None


def load(
    flags: Mapping[str, str | list[str] | None],
    config: Path | None = None,
    *,
    environment: bool = True,
) -> Settings:
    """Settings from flags (raw strings by setting name), environment and file.

    Without `environment`: for a process that will not have ours. Raises UsageError naming the
    flag, variable or key, the value and what is allowed.
    """
    variables: Mapping[str, str] = os.environ if environment else {}
    location = config or (Path(variables[CONFIG_ENV]) if variables.get(CONFIG_ENV) else None)
    values: dict[str, Any] = {}
    if location:
        from cortex_embed import settings_file

        known = {row.name: row for row in rows()}
        lists = {name for name, row in known.items() if row.is_list}
        for key, given in settings_file.read(location, known, lists=lists).items():
            values[key] = _parse(known[key], given, f"--config: {key} in {location}")
    for row in rows():
        raw = flags.get(row.name)
        if raw is not None:
            values[row.name] = _parse(row, raw, row.flag)
        elif row.env in variables:
            values[row.name] = _parse(row, variables[row.env], row.env)
    if environment:
        values.setdefault("offline", hub_is_offline())
    if values.get("sidecar"):
        _as_sidecar(values)
    return Settings(**values)


def _as_sidecar(values: dict[str, Any]) -> None:
    """A port that is free unless one was asked for, and nothing but loopback."""
    values.setdefault("port", 0)
    host = values.get("host", "127.0.0.1")
    if host not in LOOPBACK:
        raise UsageError(
            f"--host {host}: a sidecar listens on {', '.join(LOOPBACK)} only; leave --host out, "
            "or serve without --sidecar and with --token-env."
        )


def token(name: str) -> str:
    """The API token in the environment variable `name`, which no message may quote."""
    from cortex_embed import api_keys

    return api_keys.from_variable(name, os.environ.get(name))


def keys(settings: Settings) -> tuple[str, ...]:
    """The API keys of --api-key-file and of CORTEX_EMBED_API_KEYS. Raises UsageError."""
    from cortex_embed import api_keys

    listed = os.environ.get(api_keys.KEYS_ENV)
    found = () if listed is None else api_keys.from_list(listed)
    file = settings.api_key_file
    return found if file is None else (*found, *api_keys.from_file(file))


def set_here() -> list[str]:
    """Names of our variables, and of the network's, that are set: a service does not see them."""
    ours = [name for name in os.environ if name.startswith(ENV_PREFIX)]
    return sorted([*ours, *network_environment()])


def account() -> str:
    """The user of this process as Windows names one, DOMAIN\\name; elsewhere the name alone."""
    import getpass

    domain = os.environ.get("USERDOMAIN")
    return f"{domain}\\{getpass.getuser()}" if domain else getpass.getuser()


def notify_socket() -> str:
    """Where a service manager wants to hear of readiness (sd_notify); empty where none does."""
    return os.environ.get(_NOTIFY, "")


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
    # The manager that runs our parent waits for the parent's readiness, not for the child's.
    dropped.add(_NOTIFY)
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
