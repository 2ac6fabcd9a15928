"""The moment that everything made from this tree is dated with: SOURCE_DATE_EPOCH.

Freezing, archives and the SBOM ask here, so that the same commit gives the same bytes
(https://reproducible-builds.org/specs/source-date-epoch/). It must never be the clock's time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = "SOURCE_DATE_EPOCH"
# The oldest moment that a zip archive can state.
_OLDEST = 315_532_800


def epoch(root: Path = ROOT) -> int:
    """Seconds since 1970: the variable's, else the commit's, else 1980 (said on stderr).

    Raises ValueError, naming the variable, for one that is no whole number from 1980 on.
    """
    given = os.environ.get(VARIABLE)
    if given is not None:
        if not given.isascii() or not given.isdigit() or int(given) < _OLDEST:
            raise ValueError(
                f"{VARIABLE}={given!r}: it must be whole seconds since 1970, at least {_OLDEST} "
                "(1980, where zip archives begin). Unset it to take the commit's date."
            )
        return int(given)
    command = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return int(said)
    except (OSError, subprocess.CalledProcessError, ValueError):
        print(f"No git history in {root} and no {VARIABLE}: dated 1980-01-01.", file=sys.stderr)
        return _OLDEST


def moment(root: Path = ROOT) -> datetime:
    """The same in UTC."""
    return datetime.fromtimestamp(epoch(root), UTC)
