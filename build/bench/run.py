"""The side-by-side benchmark, in one command (`nox -s bench` calls it).

    python build/bench/run.py --work dist/bench [--quick] [--only NAME ...] [--parts ...]

It must never publish a quick or partial run: only a full one writes the README's table.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # As a script, the path starts with this directory; `bench` and its neighbours are one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from bench.main import main

    sys.exit(main())
