"""GitHub's workflows as data, for the tests of what they say and of what their lines do."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted(GITHUB.glob("actions/*/action.yml"))


@cache
def read(path: Path) -> Any:
    # BaseLoader: no `on: true`, no `version: 0.13`; every scalar as it is written.
    return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506


def jobs(workflow: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(GITHUB / "workflows" / f"{workflow}.yml")["jobs"]
    return found


def steps(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every step of a workflow or an action, with the name of its job."""
    document = read(path)
    if "runs" in document:
        yield from ((path.parent.name, step) for step in document["runs"]["steps"])
    for name, job in document.get("jobs", {}).items():
        yield from ((name, step) for step in job["steps"])


def step(workflow: str, job: str, words: str) -> dict[str, Any]:
    """The one step of a job whose name has these words in it."""
    found = [one for one in jobs(workflow)[job]["steps"] if words in one.get("name", "")]
    assert len(found) == 1, f"{workflow}: {job}: {words!r}"
    step_: dict[str, Any] = found[0]
    return step_
