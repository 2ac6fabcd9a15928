from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed.commands import serve
from cortex_embed.config import Settings
from cortex_embed.errors import BindError, ModelFileError

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.store import Artifact


def test_a_missing_model_fails_before_anything_is_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.socket.bind", lambda *_: pytest.fail("bound a socket"))
    with pytest.raises(ModelFileError):
        serve.run(Settings(model=str(tmp_path / "none"), port=0))


def test_an_address_that_is_not_ours_is_named(tiny_mean: Artifact) -> None:
    # 192.0.2.0/24 is reserved for documentation (RFC 5737): nobody's address.
    settings = Settings(model=str(tiny_mean.directory), host="192.0.2.1", port=0)
    with pytest.raises(BindError, match=r"192\.0\.2\.1"):
        serve.run(settings)
