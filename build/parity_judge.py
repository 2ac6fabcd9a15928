"""What every parity comparison shares: vectors of a server, of batches, and the verdict on them.

It must never know how a model or its reference is made.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cortex_embed.errors import SelfTestError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import InputType

    Vectors = NDArray[np.float32]
    Embed = Callable[[Sequence[str]], Vectors]

MAX_DIFFERENCE = 1e-5
MIN_COSINE = 0.999999


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table."""

    what: str
    how: str
    texts: int
    tokens: str
    difference: float
    cosine: float
    limit: float = MAX_DIFFERENCE

    @property
    def passed(self) -> bool:
        # Written so that a NaN fails.
        return self.difference <= self.limit and self.cosine >= MIN_COSINE


def served(url: str, input_type: InputType | None = None) -> Embed:
    """Vectors as a running server answers `POST /embed`."""
    import numpy as np

    body = {} if input_type is None else {"mode": input_type}

    def embed(texts: Sequence[str]) -> Vectors:
        answer = http(url, "POST", "/embed", body | {"texts": list(texts)})
        return np.array(answer["embeddings"], dtype=np.float32)

    return embed


def http(url: str, method: str, path: str, body: object = None) -> Any:
    parts = urlsplit(url)
    connection = HTTPConnection(parts.hostname or "", parts.port or 80, timeout=300)
    try:
        sent = None if body is None else json.dumps(body).encode()
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read().decode()
    except (OSError, HTTPException) as why:
        raise UsageError(f"--url {url}: {method} {path}: {why}. Is the server running?") from None
    finally:
        connection.close()
    if response.status != 200:
        raise UsageError(f"--url {url}: {method} {path}: {response.status} {content[:500]}")
    return json.loads(content)


@contextmanager
def serving(model: str, *options: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """The address of a server of ours with this model, for as long as it is needed."""
    command = [sys.executable, "-m", "cortex_embed", "serve", "--port", "0", "--model", model]
    with subprocess.Popen(
        [*command, *options], stderr=subprocess.PIPE, text=True, encoding="utf-8", env=env
    ) as server:
        assert server.stderr is not None  # noqa: S101 - a pipe was asked for
        said = []
        for line in server.stderr:
            said.append(line)
            if "Model ready" in line:
                break
        else:
            raise SelfTestError("The server did not start:\n" + "".join(said))
        try:
            yield said[0].split()[-1]  # "Listening on http://…"
        finally:
            server.terminate()


def in_batches(embed: Embed, texts: Sequence[str], size: int) -> Vectors:
    """[n, d] in the order of `texts`, computed `size` at a time, lengths mixed."""
    import numpy as np

    # A fixed shuffle: texts come sorted by length, and neighbours should differ.
    order = np.random.RandomState(7).permutation(len(texts))
    parts = [
        embed([texts[i] for i in order[start : start + size]])
        for start in range(0, len(texts), size)
    ]
    return np.concatenate(parts)[np.argsort(order)]


def compare(ours: Vectors, theirs: Vectors) -> tuple[float, float]:
    """Largest absolute difference, and smallest cosine of the rows of two normalized [n, d]."""
    import numpy as np

    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    if a.shape != b.shape:
        raise SelfTestError(f"Shapes differ: ours {a.shape}, the reference's {b.shape}.")
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return float(np.abs(a - b).max()), float(cosines.min())


def report(verdicts: Sequence[Verdict]) -> None:
    """Print the table."""
    print(f"{'model':26} {'what':16} {'texts':>5} {'tokens':>7} {'max abs':>9} {'cosine':>10}")
    for v in verdicts:
        print(
            f"{v.what:26} {v.how:16} {v.texts:5} {v.tokens:>7} {v.difference:9.2e} "
            f"{v.cosine:10.8f}  {'ok' if v.passed else 'FAILED'}",
            flush=True,
        )


def must_pass(verdicts: Sequence[Verdict]) -> None:
    """Raises SelfTestError where one has not."""
    if failed := [v for v in verdicts if not v.passed]:
        raise SelfTestError(
            f"{len(failed)} of {len(verdicts)} comparisons are over their max abs (most: "
            f"{MAX_DIFFERENCE}) or under cosine {MIN_COSINE}."
        )
