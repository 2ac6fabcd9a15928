"""The background servers of one user: which there may be, which there are, who starts them.

`ensure` and `stop` share this directory and its files, by identity KEY: `KEY.json` says what
was started last (a `Record`), the file it names is that server's ready event, `KEY.log` is
its stderr, `KEY.lock` is held by who starts. A record may be stale: it must never be believed
before the process and its answer were seen, and no file here may be readable by others.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.errors import OutputError
from cortex_embed.locking import try_lock
from cortex_embed.processes import alive, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.config import Settings

State = Literal["running", "starting", "busy", "gone"]
_PROBE_LIMIT = 2.0
_TICK = 0.02
_HASH_SHOWN = 16


@dataclass(frozen=True, slots=True)
class Identity:
    """What two servers must share to be interchangeable: what their vectors depend on."""

    version: str
    model: str
    precision: str
    key: str

    def __str__(self) -> str:
        return f"{self.model} ({self.precision})"


@dataclass(frozen=True, slots=True)
class Record:
    """A server that was started: its outer process, and the file of its ready event."""

    pid: int
    started: int
    ready: str
    model: str
    precision: str
    version: str

    @property
    def alive(self) -> bool:
        return alive(self.pid) and started(self.pid) in {self.started, 0}


@dataclass(frozen=True, slots=True)
class Instance:
    """The place of one identity in the runtime directory; whether it runs is another question."""

    directory: Path
    key: str

    @property
    def lock(self) -> Path:
        return self.directory / f"{self.key}.lock"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.key}.log"

    @property
    def _record(self) -> Path:
        return self.directory / f"{self.key}.json"

    def record(self) -> Record | None:
        """What was started last, if it can be read."""
        found = _read_json(self._record)
        try:
            record = Record(**found) if found else None
        except TypeError:  # another version's
            return None
        # A name, so that no record can lead out of this directory.
        return record if record and Path(record.ready).name == record.ready else None

    def write(self, record: Record) -> None:
        """Replace the record in one step. Raises OSError."""
        draft = self._record.with_suffix(f".{os.getpid()}.part")
        draft.write_text(json.dumps(asdict(record)), encoding="utf-8")
        draft.replace(self._record)

    def event(self, record: Record) -> dict[str, Any] | None:
        """The ready event of what was started, once it is ready."""
        found = _read_json(self.directory / record.ready)
        wanted = {"event": str, "host": str, "port": int, "pid": int, "token": str}
        if not found or not all(isinstance(found.get(k), kind) for k, kind in wanted.items()):
            return None
        return found if found["event"] == "ready" else None

    def state(self) -> tuple[State, dict[str, Any] | None]:
        """Whether a server of this identity can be used, and its ready event."""
        record = self.record()
        if record is None or not record.alive:
            return "gone", None
        event = self.event(record)
        if event is None:
            return "starting", None
        return (probe(event) if alive(event["pid"]) else "gone"), event

    def forget(self) -> None:
        """Remove what is known of a server that is gone. Call it with the lock held."""
        with suppress(OSError):
            # Also those of which the record was lost: they hold tokens.
            for ready in self.directory.glob(f"{self.key}.*.ready"):
                ready.unlink(missing_ok=True)
            self._record.unlink(missing_ok=True)

    @contextmanager
    def starting(self, deadline: float) -> Iterator[None]:
        """Hold the right to start a server of this identity. Raises TimeoutError, OSError."""
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise TimeoutError
                time.sleep(_TICK)
            yield
        finally:
            os.close(descriptor)  # which gives the lock back


def identity(settings: Settings) -> Identity:
    """What `settings` ask for. Raises what `locate_models` raises."""
    from hashlib import sha256

    from cortex_embed import __version__
    from cortex_embed.composition import locate_models

    found = locate_models(settings)
    # The manifest, not the path: the embedded model lies elsewhere in every one-file start.
    facts = [__version__, [one.model.facts for one in found], settings.on_overlong]
    digest = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    models = ", ".join(one.model.spec.id for one in found)
    precisions = ", ".join(dict.fromkeys(one.choice.precision for one in found))
    return Identity(__version__, models, precisions, digest[:_HASH_SHOWN])


def all_of(directory: Path) -> list[Instance]:
    """Every identity that has a record in `directory`."""
    keys = sorted(p.stem for p in directory.glob("*.json") if len(p.stem) == _HASH_SHOWN)
    return [Instance(directory, key) for key in keys]


def runtime_dir(settings: Settings) -> Path:
    """This user's own directory, made if need be. Raises OutputError."""
    chosen = settings.runtime_dir
    candidates = [chosen] if chosen is not None else _platform_dirs()
    reasons = []
    for directory in candidates:
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if problem := _problem(directory):
                reasons.append(f"{directory} {problem}")
                continue
        except OSError as why:
            reasons.append(f"{directory} cannot be used: {why.strerror or why}")
            continue
        return directory
    raise OutputError(
        f"There is no place for background servers: {'; '.join(reasons)}. "
        "Name a private directory with --runtime-dir."
    )


def probe(event: dict[str, Any]) -> State:
    """Ask the server that wrote `event` whether it is there, ready, and knows its token."""
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection(event["host"], event["port"], timeout=_PROBE_LIMIT)
    try:
        connection.request("GET", "/readyz")
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:  # it is stopping: what is ready once never loads again
            return "gone"
        connection.request("GET", "/", headers={"Authorization": f"Bearer {event['token']}"})
        reply = connection.getresponse()
        body = reply.read(65_536)
        return "running" if reply.status == 200 and _is_ours(body, event) else "gone"
    except TimeoutError:
        return "busy"
    except (OSError, HTTPException, ValueError):
        return "gone"
    finally:
        connection.close()


def _is_ours(body: bytes, event: dict[str, Any]) -> bool:
    """Whether the port was not given to a stranger meanwhile, who says 200 to everything."""
    answer = json.loads(body)
    return (
        isinstance(answer, dict)
        and answer.get("status") == "ok"
        and answer.get("dimensions") == event.get("dimensions")
    )


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _platform_dirs() -> list[Path]:
    import tempfile
    import warnings

    import platformdirs

    cache = Path(platformdirs.user_cache_dir("cortex-embed", appauthor=False)) / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says where it falls back to: we look ourselves
        try:
            runtime = Path(platformdirs.user_runtime_dir("cortex-embed", appauthor=False))
        except OSError:
            return [cache]
    # A temp directory is emptied by the system, and depends on who logs in how.
    in_temp = runtime.is_relative_to(tempfile.gettempdir())
    return [cache] if in_temp else [runtime, cache]


if sys.platform == "win32":

    def _problem(directory: Path) -> str:
        return "" if directory.is_dir() else "is no directory"

else:

    def _problem(directory: Path) -> str:
        """Why others could read tokens in `directory`, or have put files there; empty if not."""
        import stat

        status = directory.lstat()
        if not stat.S_ISDIR(status.st_mode):
            return "is no directory (a link will not do)"
        if status.st_uid != os.geteuid():
            return f"belongs to user {status.st_uid}, not {os.geteuid()}"
        mode = stat.S_IMODE(status.st_mode)
        return f"is open to others (mode {mode:04o}; chmod 700 closes it)" if mode & 0o077 else ""
