"""Windows' Task Scheduler: a task of this user, started at logon, without administrator's rights.

The schema is that of [MS-TSCH] 2.5; a user may register a logon trigger for themselves
(3.2.5.4.2 there). Not run by us on Windows so far: what is held here is the definition. It must
never touch another task than its own.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from cortex_embed import __version__
from cortex_embed.errors import InstanceError, UsageError
from cortex_embed.managers.manager import DOCUMENTATION, MARK, must, tool

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cortex_embed.managers.job import Job

TASK = "cortex-embed"
_NAMESPACE = "http://schemas.microsoft.com/windows/2004/02/mit/task"
# It draws no window; a console program's own would stay open on the desktop, and closing that
# would end the server.
_HOST = r"%SystemRoot%\System32\conhost.exe"


class TaskScheduler:
    """This user's tasks."""

    name = "Task Scheduler"

    def __init__(self, user: str) -> None:
        """`user` as DOMAIN\\name."""
        self._user = user

    @property
    def place(self) -> str:
        return f"the task \\{TASK}"

    def definition(self, job: Job) -> bytes:
        arguments = subprocess.list2cmdline(["--headless", *job.words])
        if re.search(r"%[^%]+%", arguments):
            raise UsageError(
                f"{arguments}: Task Scheduler would put a variable in place of what stands "
                "between two %, and has no way to write one. Choose other paths."
            )
        task = ElementTree.Element("Task", version="1.2", xmlns=_NAMESPACE)
        for section in (_registration, self._triggers, self._principals, _settings):
            task.append(section())
        task.append(
            _tree(
                "Actions",
                {"Exec": {"Command": _HOST, "Arguments": arguments}},
                Context="Author",
            )
        )
        ElementTree.indent(task)
        # With its byte order mark, as schtasks wants it.
        text: bytes = ElementTree.tostring(task, encoding="utf-16", xml_declaration=True)
        return text

    def check(self) -> None:
        must("schtasks", "/?")

    def installed(self) -> bytes | None:
        code, said = tool("schtasks", "/Query", "/TN", TASK, "/XML")
        return None if code else said.encode("utf-16")  # as the text itself declares

    def install(self, definition: bytes) -> None:
        import tempfile

        tool("schtasks", "/End", "/TN", TASK)  # one that runs; there may be none
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "task.xml"
            file.write_bytes(definition)
            must("schtasks", "/Create", "/TN", TASK, "/XML", str(file), "/F")
        must("schtasks", "/Run", "/TN", TASK)

    def remove(self) -> None:
        tool("schtasks", "/End", "/TN", TASK)
        must("schtasks", "/Delete", "/TN", TASK, "/F")

    def state(self) -> tuple[bool, str]:
        code, said = tool("schtasks", "/Query", "/TN", TASK, "/FO", "CSV", "/NH")
        if code:
            raise InstanceError(f"`schtasks /Query /TN {TASK}` failed: {said}")
        word = said.splitlines()[0].split(",")[-1].strip('"')
        return word == "Running", word  # in the language of this Windows

    def hints(self) -> dict[str, str]:
        return {
            "state": f"schtasks /Query /TN {TASK} /V /FO LIST",
            "stop (until the next logon)": f"schtasks /Change /TN {TASK} /DISABLE & "
            f"schtasks /End /TN {TASK}",
        }

    def _triggers(self) -> ElementTree.Element:
        # RestartOnFailure covers a task that cannot be started, not one that has ended. So it is
        # started every five minutes, which MultipleInstancesPolicy ignores while it runs.
        again = {"Interval": "PT5M", "StopAtDurationEnd": "false"}
        logon = {"Enabled": "true", "Repetition": again, "UserId": self._user}
        return _tree("Triggers", {"LogonTrigger": logon})

    def _principals(self) -> ElementTree.Element:
        principals = ElementTree.Element("Principals")
        own = {
            "UserId": self._user,
            "LogonType": "InteractiveToken",
            "RunLevel": "LeastPrivilege",
        }
        principals.append(_tree("Principal", own, id="Author"))
        return principals


def _registration() -> ElementTree.Element:
    return _tree(
        "RegistrationInfo",
        {
            "Description": "cortex-embed: text embeddings for the programs of this user",
            "Documentation": DOCUMENTATION,
            "Source": f"{MARK} ({__version__}).",
        },
    )


def _settings() -> ElementTree.Element:
    return _tree(
        "Settings",
        {
            "MultipleInstancesPolicy": "IgnoreNew",
            "DisallowStartIfOnBatteries": "false",
            "StopIfGoingOnBatteries": "false",
            "RestartOnFailure": {"Interval": "PT1M", "Count": "3"},
            "ExecutionTimeLimit": "PT0S",  # none; the default ends it after three days
            # The default, 7, is below normal, for memory and disk too.
            "Priority": "5",
        },
    )


def _tree(name: str, content: Mapping[str, object], **attributes: str) -> ElementTree.Element:
    element = ElementTree.Element(name, attributes)
    for key, value in content.items():
        if isinstance(value, dict):
            element.append(_tree(key, value))
        else:
            ElementTree.SubElement(element, key).text = str(value)
    return element
