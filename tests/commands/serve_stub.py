"""What `ensure` sees of `serve`, in no time: a ready file, a token, a port, an end by SIGTERM.

A script: run it as `python serve_stub.py serve --ready-file=F --token-env=NAME …`. STUB_DELAY
makes it load, STUB_EXIT makes it fail, STUB_STARTS counts how often it was started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

LIFETIME = 60.0  # nothing outlives a test run that was killed


def flags(argv: list[str]) -> dict[str, str]:
    return {k: v for k, _, v in (word.partition("=") for word in argv) if k.startswith("--")}


class Handler(BaseHTTPRequestHandler):
    token = ""

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization") == f"Bearer {self.token}"
        status = 200 if self.path in {"/livez", "/readyz"} or allowed else 401
        body = json.dumps({"status": "ok", "dimensions": 32}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def main() -> None:
    if starts := os.environ.get("STUB_STARTS"):
        with Path(starts).open("a") as file:
            file.write(" ".join(sys.argv[1:]) + "\n")
    given = flags(sys.argv[1:])
    ready = Path(given["--ready-file"])
    if code := os.environ.get("STUB_EXIT"):
        sys.stderr.write("the model is damaged\n")
        sys.exit(int(code))
    Handler.token = os.environ[given["--token-env"]]
    time.sleep(float(os.environ.get("STUB_DELAY", "0")))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port = server.server_address[1]
    event = {"event": "ready", "v": 1, "url": f"http://127.0.0.1:{port}", "host": "127.0.0.1"}
    event |= {"port": port, "pid": os.getpid(), "token": Handler.token, "dimensions": 32}

    def stop(*_: object) -> None:
        ready.unlink(missing_ok=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    threading.Timer(LIFETIME, stop).start()
    draft = ready.with_suffix(".draft")
    draft.write_text(json.dumps(event))
    draft.replace(ready)
    server.serve_forever()


if __name__ == "__main__":
    main()
