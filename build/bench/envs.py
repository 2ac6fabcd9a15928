"""One virtual environment a peer, made once from its file in requirements/bench.

A peer's packages must never meet ours, nor another peer's: their pins contradict each other.
A peer that cannot be installed is a result too: the caller gets the installer's own words.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
REQUIREMENTS = ROOT / "requirements" / "bench"
_STAMP = "bench-stamp"
_TAIL = 12
_LIMIT = 3600.0
_OURS = ("CORTEX_EMBED_", "OMP_")


class PeerError(Exception):
    """A peer that cannot be installed, started, or used; the text is its own message."""


def prepare(name: str, envs: Path) -> Path:
    """The Python of environment `name` under `envs`, made now unless its file is unchanged.

    Raises PeerError with the end of pip's output.
    """
    if name == "ours":
        return Path(sys.executable)
    wanted = REQUIREMENTS / f"{name}.in"
    stamp = f"{hashlib.sha256(wanted.read_bytes()).hexdigest()} {sys.version}"
    home = envs / name
    python = _python(home)
    marker = home / _STAMP
    if marker.is_file() and marker.read_text(encoding="utf-8") == stamp:
        return python
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    print(f"Installing {name} into {home}", flush=True)
    log = envs / f"{name}.log"
    with log.open("wb") as output:
        _step([sys.executable, "-m", "venv", str(home)], output, log)
        # pip, not uv: where a CPU wheel of torch is offered to pip it is taken.
        install = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        _step([*install, "--requirement", str(wanted)], output, log)
    marker.write_text(stamp, encoding="utf-8")
    print(f"Installed {name} in {time.monotonic() - started:.0f} s", flush=True)
    return python


def _python(home: Path) -> Path:
    return home / "Scripts" / "python.exe" if sys.platform == "win32" else home / "bin" / "python"


def _step(command: list[str], output: object, log: Path) -> None:
    # A child's environment, not a setting of ours.
    environment = os.environ | {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    try:
        done = subprocess.run(
            command,
            stdout=output,  # type: ignore[call-overload]
            stderr=subprocess.STDOUT,
            check=False,
            timeout=_LIMIT,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise PeerError(f"{' '.join(command)} took more than {_LIMIT:.0f} s. Log: {log}") from None
    if done.returncode:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise PeerError("\n".join([*lines[-_TAIL:], f"(whole log: {log})"]))


def clean_environment(threads: int) -> dict[str, str]:
    """The environment of every peer: no network, no telemetry, `threads` threads.

    What a peer reads to know its threads is set for all alike; ours takes `--threads`.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_OURS)}
    count = str(threads)
    return kept | {
        # app too: an installed cortex-embed may be another checkout's than the one to measure.
        "PYTHONPATH": os.pathsep.join([str(ROOT / "build"), str(ROOT / "app")]),
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "RAYON_NUM_THREADS": count,
        "TOKENIZERS_PARALLELISM": "true",
        "ORT_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
        "OPENVINO_TELEMETRY": "0",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_OFFLINE": "1",
    }
