"""A sidecar in small: `serve --sidecar` of a stub, as one process or as PyInstaller's two.

`python one_file_stub.py [--one-file] …`. With --one-file the outer process unpacks itself,
starts the inner one, passes SIGTERM on and removes the directory afterwards, in that order
and with those gaps that the real bootloader has. What is under test is the watch in the
inner one. STUB_BARE=1 leaves that out.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

LIFETIME = 20.0  # nothing outlives a test run that was killed


def outer() -> None:
    # With `dir`: without it tempfile first tries the place with a file, which a kill leaves behind.
    name = f"_MEI{os.getpid():08x}"
    directory = Path(tempfile.mkdtemp(prefix=name, dir=os.environ["TMPDIR"]))
    for name in ("a.so", "b.so", "cortex-embed.marker", "c.so"):
        (directory / name).touch()
        time.sleep(0.005)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    child = subprocess.Popen([sys.executable, __file__, "--inner", str(directory)])
    signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGTERM))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    code = child.wait()
    shutil.rmtree(directory, ignore_errors=True)
    sys.exit(code if code >= 0 else 128 - code)


def inner() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    from cortex_embed.watch import Watch, host_pid, sweep

    if not os.environ.get("STUB_BARE"):
        watch = Watch()
        watch.watch_stdin()
        if host := host_pid():
            watch.watch_process(host, "parent")
        watch.start()
    sys.stdout.write(json.dumps({"event": "ready", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    temp = Path(os.environ["TMPDIR"])  # not gettempdir, for the same reason as in `outer`
    threading.Thread(target=sweep, args=(temp,), daemon=True).start()
    time.sleep(LIFETIME)


if __name__ == "__main__":
    if "--inner" in sys.argv:
        sys.frozen, sys._MEIPASS = True, sys.argv[-1]  # type: ignore[attr-defined]
        inner()
    elif "--one-file" in sys.argv:
        outer()
    else:
        inner()
