"""The task by the published schema ([MS-TSCH] 2.5), and the calls of schtasks."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from cortex_embed.errors import InstanceError, UsageError
from cortex_embed.managers.manager import is_ours
from cortex_embed.managers.task_scheduler import TASK, TaskScheduler
from tests.managers.conftest import Tool, make_job

SPACE = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
USER = "BOX\\änn"
# Children that the schema knows of, by element; a trigger's and a repetition's in their order.
SCHEMA = {
    "Task": ["RegistrationInfo", "Triggers", "Principals", "Settings", "Actions"],
    "RegistrationInfo": ["Description", "Documentation", "Source"],
    "Triggers": ["LogonTrigger"],
    "LogonTrigger": ["Enabled", "Repetition", "UserId"],
    "Repetition": ["Interval", "StopAtDurationEnd"],
    "Principals": ["Principal"],
    "Principal": ["UserId", "LogonType", "RunLevel"],
    "Settings": [
        *("MultipleInstancesPolicy", "DisallowStartIfOnBatteries", "StopIfGoingOnBatteries"),
        *("RestartOnFailure", "ExecutionTimeLimit", "Priority"),
    ],
    "RestartOnFailure": ["Interval", "Count"],
    "Actions": ["Exec"],
    "Exec": ["Command", "Arguments"],
}


def task(*words: str, program: tuple[str, ...]) -> ElementTree.Element:
    definition = TaskScheduler(USER).definition(make_job(*words, program=program))
    assert definition.startswith((b"\xff\xfe", b"\xfe\xff")), "no byte order mark"
    assert is_ours(definition)
    return ElementTree.fromstring(definition)  # noqa: S314 - made by us a moment ago


def value(root: ElementTree.Element, path: str) -> str:
    return root.findtext("/".join(SPACE + part for part in path.split("/"))) or ""


def test_every_element_is_where_the_schema_has_it() -> None:
    root = task(program=("C:\\x.exe",))
    assert root.get("version") == "1.2"
    for element in root.iter():
        children = [child.tag.removeprefix(SPACE) for child in element]
        assert children == SCHEMA.get(element.tag.removeprefix(SPACE), []), element.tag
    actions, principal = root.find(f"{SPACE}Actions"), root.find(f".//{SPACE}Principal")
    assert actions is not None
    assert principal is not None
    assert actions.get("Context") == principal.get("id")


def test_it_runs_for_this_user_alone_and_for_good() -> None:
    root = task(program=("C:\\x.exe",))
    assert value(root, "Triggers/LogonTrigger/UserId") == USER
    assert value(root, "Principals/Principal/UserId") == USER
    assert value(root, "Principals/Principal/RunLevel") == "LeastPrivilege"
    assert value(root, "Settings/ExecutionTimeLimit") == "PT0S"
    assert value(root, "Settings/MultipleInstancesPolicy") == "IgnoreNew"
    assert value(root, "Triggers/LogonTrigger/Repetition/Interval") == "PT5M"


def test_the_command_line_is_quoted_as_windows_reads_it() -> None:
    exe = "C:\\Program Files\\cortex & embed\\ä.exe"
    root = task("--cors-origins", "*", program=(exe,))
    assert value(root, "Actions/Exec/Command").endswith("conhost.exe")
    assert value(root, "Actions/Exec/Arguments") == f'--headless "{exe}" serve --cors-origins=*'


def test_what_task_scheduler_would_change_is_refused() -> None:
    job = make_job(program=("C:\\100%\\%USERNAME%\\x.exe",))
    with pytest.raises(UsageError, match="between two %"):
        TaskScheduler(USER).definition(job)
    assert task("--host", "fe80::1%3", program=("C:\\x.exe",)) is not None


def test_install_and_remove(tool: Tool, tmp_path: Path) -> None:
    tool.answer("schtasks", f'*/XML*/F) cp "$5" "{tmp_path}/given";;', "*/Query*) exit 1;;")
    manager = TaskScheduler(USER)
    manager.check()
    assert manager.installed() is None
    manager.install(b"the definition")
    assert (tmp_path / "given").read_bytes() == b"the definition"
    manager.remove()
    verbs = [call.split()[1] for call in tool.calls]
    assert verbs == ["/?", "/Query", "/End", "/Create", "/Run", "/End", "/Delete"]


def test_what_is_installed_is_known_by_its_mark(tool: Tool) -> None:
    tool.answer("schtasks", "*) echo '<Source>Written by `cortex-embed service install`';;")
    found = TaskScheduler(USER).installed()
    assert found is not None
    assert is_ours(found)


@pytest.mark.parametrize(("word", "runs"), [("Running", True), ("Ready", False)])
def test_state(word: str, runs: bool, tool: Tool) -> None:
    tool.answer("schtasks", f"""*) printf '"cortex-embed","N/A","{word}"\\n';;""")
    assert TaskScheduler(USER).state() == (runs, word)
    tool.answer("schtasks", "*) echo 'not found'; exit 1;;")
    with pytest.raises(InstanceError, match=f"schtasks /Query /TN {TASK}"):
        TaskScheduler(USER).state()
