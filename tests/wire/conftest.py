"""A model and a result with vectors that JSON must carry without loss."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from cortex_embed.domain import EmbedResult, ModelSpec, Truncation

# A busy machine is no failure: pytest's own limit is there for what hangs.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        id="tiny",
        repo="cortex/tiny",
        revision="0" * 40,
        family="bert",
        pooling="cls",
        normalize=True,
        dimensions=3,
        max_tokens=8,
        query_prefix="query: ",
        document_prefix="",
        licence="MIT",
    )


@pytest.fixture
def result(spec: ModelSpec) -> EmbedResult:
    vectors = np.array([[0.5, -0.25, 0.125], [1 / 3, -1e-8, 3.4e38]], dtype=np.float32)
    return EmbedResult(vectors, tokens=7, model=spec, truncations=(Truncation(1, 9, 8),))
