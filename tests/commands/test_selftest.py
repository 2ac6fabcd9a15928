from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.commands import selftest
from cortex_embed.config import Settings
from cortex_embed.domain import Golden
from cortex_embed.errors import SelfTestError
from cortex_embed.models.catalogue import SumCheck

if TYPE_CHECKING:
    from cortex_embed.models.store import Artifact


@pytest.mark.real
def test_the_default_model_passes(
    minilm_artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert selftest.run(Settings(model=(str(minilm_artifact.directory),))) == 0
    out = capsys.readouterr().out
    assert "against golden vectors and one against published sums" in out
    assert "sums of 4 texts against Anush008/fastembed-rs" in out
    assert "FAIL" not in out
    assert out.count("ok") >= 5


def test_a_model_without_goldens_says_so(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert selftest.run(Settings(model=(str(tiny_mean.directory),))) == 0
    assert "no golden vectors are known" in capsys.readouterr().out


def test_a_wrong_vector_fails(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Golden(text="a", vector=(0.9, 0.9), tolerance=1e-3, source="nobody@0")
    monkeypatch.setattr("cortex_embed.models.golden.goldens", lambda _: (wrong,))
    with pytest.raises(SelfTestError, match=r"1 of 3 checks failed") as caught:
        selftest.run(Settings(model=(str(tiny_mean.directory),)))
    assert caught.value.exit_code == 7
    assert "FAIL" in capsys.readouterr().out


def test_wrong_sums_fail(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = SumCheck(("a", "hello"), (9.0, 9.0), tolerance=0.01, source="nobody@0", weights="x")
    monkeypatch.setattr("cortex_embed.models.golden.sum_check", lambda _: wrong)
    with pytest.raises(SelfTestError, match=r"1 of 3 checks failed"):
        selftest.run(Settings(model=(str(tiny_mean.directory),)))
    assert "sums of 2 texts against nobody" in capsys.readouterr().out


def test_nan_never_passes() -> None:
    assert not selftest.Check("x", float("nan"), 1.0).passed
    assert not selftest.Check("x", np.inf, 1.0).passed
    assert selftest.Check("x", 0.5, 1.0).passed


def test_the_hash_provider_has_nothing_to_test(capsys: pytest.CaptureFixture[str]) -> None:
    assert selftest.run(Settings(model=("hash",))) == 0
    out = capsys.readouterr().out
    assert "nothing to test" in out
    assert "vectors mean nothing" in out
    assert "passed" not in out
