"""`cortex-embed selftest`: does this installation give the vectors that its model must give?

Embeds the model's golden texts, published ones and our own, and compares, as it does with sums
that others publish; then asks the two things that hold for every model: length 1, and no
influence of neighbours in a batch.
It must never pass a model that it could not check without saying so.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import SelfTestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.config import Settings
    from cortex_embed.domain import Golden
    from cortex_embed.models.catalogue import SumCheck
    from cortex_embed.service import EmbeddingService
    from cortex_embed.vectors import Vectors

_INVARIANCE = 1e-6
_UNIT = 1e-5
_ANGLES = {"int16": 1e-6, "int8": 0.01}
"""By precision: 1 - cosine of one text."""
_NEIGHBOURS = (
    "a",
    "A vector must not depend on what else is in its batch.",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. " * 4,
    "import this; print('naïve café') # 日本語 🙂",
    "long text " * 400,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the table: `difference` may be at most `tolerance` (both absolute)."""

    name: str
    difference: float
    tolerance: float

    @property
    def passed(self) -> bool:
        # Written so that NaN fails.
        return self.difference <= self.tolerance


def run(settings: Settings) -> int:
    """Print the table and the verdict; the exit code. Raises SelfTestError, ModelFileError."""
    from cortex_embed.commands import download
    from cortex_embed.composition import build_service
    from cortex_embed.models.golden import goldens, sum_check

    service = build_service(settings, download.here(settings))
    model = service.models()[0]
    if model.spec.family == "hash":
        print(f"Model: {model.spec.id}. There is nothing to test: {model.origin}.")
        return 0
    known, sums = goldens(model.spec.id), sum_check(model.spec.id)
    print(f"Model: {model.spec.id} ({model.facts['precision']})")
    if model.facts["precision"] != "fp32":
        # Close to the model's own vectors, not equal: judged by angle, over whole vectors.
        known = tuple(g for g in known if len(g.vector) == model.spec.dimensions)
        sums = None  # rounding moves a sum of hundreds of numbers by more than its tolerance
    checks = asyncio.run(_checks(service, known, sums, model.facts["precision"]))
    for check in checks:
        verdict = "ok  " if check.passed else "FAIL"
        print(f"{verdict}  {check.difference:9.2e} (at most {check.tolerance:.0e})  {check.name}")
    failed = sum(not check.passed for check in checks)
    if failed:
        raise SelfTestError(
            f"{failed} of {len(checks)} checks failed for {model.spec.id}: these vectors are not "
            "the model's. Fetch the model again, and report this with the table above."
        )
    if known or sums:
        published = [f"{len(known)} of them against golden vectors"] if known else []
        published += ["one against published sums"] if sums else []
        print(f"All {len(checks)} checks passed, {' and '.join(published)}.")
    else:
        print(
            f"All {len(checks)} checks passed, but no golden vectors are known for this model: "
            "only length and batch invariance were checked."
        )
    return 0


async def _checks(
    service: EmbeddingService, known: Sequence[Golden], sums: SumCheck | None, precision: str
) -> list[Check]:
    from cortex_embed.models.golden import cosine_distance, difference, sum_difference

    await service.load()
    try:
        checks = []
        for golden in known:
            pooled = await _embed(service, [golden.text], normalize=False)
            name = f"{_shown(golden.text)} against {re.split('[@,]', golden.source)[0]}"
            if precision == "fp32":
                checks.append(Check(name, difference(golden, pooled[0]), golden.tolerance))
            else:
                angle = cosine_distance(golden, pooled[0])
                checks.append(Check(f"1 - cosine of {name}", angle, _ANGLES[precision]))
        if sums is not None:
            vectors = await _embed(service, list(sums.texts))
            name = f"sums of {len(sums.texts)} texts against {sums.source.partition('@')[0]}"
            checks.append(Check(name, sum_difference(sums, vectors), sums.tolerance))
        texts = [golden.text for golden in known] + list(_NEIGHBOURS)
        together = await _embed(service, texts)
        alone = [await _embed(service, [text]) for text in texts]
        return [*checks, *_invariants(together, alone)]
    finally:
        await service.close()


def _invariants(together: Vectors, alone: list[Vectors]) -> list[Check]:
    import numpy as np

    lengths = np.linalg.norm(together.astype(np.float64), axis=1)
    neighbours = np.abs(together - np.concatenate(alone)).max()
    return [
        Check("length 1", float(np.abs(lengths - 1).max()), _UNIT),
        Check(f"{len(together)} texts together and alone", float(neighbours), _INVARIANCE),
    ]


async def _embed(service: EmbeddingService, texts: list[str], *, normalize: bool = True) -> Vectors:
    request = EmbedRequest(texts=tuple(texts), truncate="end", normalize=normalize)
    return (await service.embed(request)).vectors


def _shown(text: str) -> str:
    return repr(text if len(text) <= 30 else text[:29] + "…")
