"""Facts about other processes: is one alive, when was it started, who is its parent.

The standard library answers none of these on every system, and a pid alone does not name a
process: it is given away again. So a pid is always kept with its start time. This module
must never send a signal, and never import what a start would feel.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ONE_FILE = re.compile(r"_MEI([0-9a-f]{8}).+")
"""How PyInstaller's bootloader names the directory that it unpacks itself into: its own pid,
then random characters (pyi_utils_posix.c and pyi_utils_win32.c, `"_MEI" "%08x"`)."""


def alive(pid: int) -> bool:
    """Whether `pid` is a running process. One that has ended and was not waited for is not."""
    if pid <= 0:
        return False
    return _alive(pid)


def started(pid: int) -> int:
    """When `pid` was started, in a unit of the system's own, for comparison only; 0: not known."""
    return _facts(pid)[1] if pid > 0 else 0


def parent_of(pid: int) -> int:
    """The parent of `pid`; 0 where it cannot be known."""
    return _facts(pid)[0] if pid > 0 else 0


def unpacked() -> Path | None:
    """The directory that this process was unpacked into; None where it is not one-file."""
    place = Path(getattr(sys, "_MEIPASS", ""))
    return place if getattr(sys, "frozen", False) and ONE_FILE.fullmatch(place.name) else None


def bootloader_pid() -> int:
    """The outer process of a one-file program, by which it was unpacked; 0 for any other."""
    place = unpacked()
    found = ONE_FILE.fullmatch(place.name) if place else None
    return int(found[1], 16) if found else 0


def host_pid() -> int:
    """Who started this program: our parent, or the bootloader's; 0 where it cannot be known.

    Where the bootloader is gone already, so is the way to its parent.
    """
    bootloader = bootloader_pid()
    return parent_of(bootloader) if bootloader else os.getppid()


if sys.platform == "win32":

    class _Entry:
        """PROCESSENTRY32W, of which two numbers are read; a class so that ctypes loads late."""

        SIZE = 568 if sys.maxsize > 2**32 else 556
        PID = 8
        PARENT = 32 if sys.maxsize > 2**32 else 24

    _SYNCHRONIZE, _QUERY, _TIMEOUT = 0x100000, 0x1000, 258

    def _alive(pid: int) -> bool:
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = kernel.OpenProcess(_SYNCHRONIZE, False, pid)
        if not handle:
            return ctypes.get_last_error() == 5  # access denied: it is there
        try:
            waited: int = kernel.WaitForSingleObject(ctypes.c_void_p(handle), 0)
            return waited == _TIMEOUT
        finally:
            kernel.CloseHandle(ctypes.c_void_p(handle))

    def _facts(pid: int) -> tuple[int, int]:
        return _parent(pid), _creation(pid)

    def _creation(pid: int) -> int:
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        handle = kernel.OpenProcess(_QUERY, False, pid)
        if not handle:
            return 0
        times = [ctypes.c_uint64() for _ in range(4)]
        try:
            known = kernel.GetProcessTimes(ctypes.c_void_p(handle), *map(ctypes.byref, times))
            return times[0].value if known else 0
        finally:
            kernel.CloseHandle(ctypes.c_void_p(handle))

    def _parent(pid: int) -> int:
        import ctypes

        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateToolhelp32Snapshot.restype = ctypes.c_void_p
        snapshot = ctypes.c_void_p(kernel.CreateToolhelp32Snapshot(2, 0))
        entry = ctypes.create_string_buffer(_Entry.SIZE.to_bytes(4, "little"), _Entry.SIZE)
        try:
            more = kernel.Process32FirstW(snapshot, entry)
            while more:
                if int.from_bytes(entry.raw[_Entry.PID : _Entry.PID + 4], "little") == pid:
                    raw = entry.raw[_Entry.PARENT : _Entry.PARENT + 4]
                    return int.from_bytes(raw, "little")
                more = kernel.Process32NextW(snapshot, entry)
            return 0
        finally:
            kernel.CloseHandle(snapshot)

else:

    def _alive(pid: int) -> bool:
        state = _state(pid)
        if state is not None:
            return state
        try:
            os.kill(pid, 0)  # no signal: it only asks
        except PermissionError:
            return True
        except (ProcessLookupError, OverflowError):
            return False
        return True

    if sys.platform == "darwin":

        def _bsd_info(pid: int) -> bytes:
            """`struct proc_bsdinfo` of <sys/proc_info.h>; empty where it cannot be read."""
            import ctypes

            buffer = ctypes.create_string_buffer(136)
            taken = ctypes.CDLL(None).proc_pidinfo(pid, 3, ctypes.c_uint64(0), buffer, len(buffer))
            return buffer.raw if taken == len(buffer) else b""

        def _state(pid: int) -> bool | None:
            info = _bsd_info(pid)
            return int.from_bytes(info[4:8], "little") != 5 if info else None  # 5: zombie

        def _facts(pid: int) -> tuple[int, int]:
            info = _bsd_info(pid)
            seconds = int.from_bytes(info[120:128], "little")
            fraction = int.from_bytes(info[128:136], "little")
            return int.from_bytes(info[16:20], "little"), seconds * 1_000_000 + fraction

    else:

        def _stat(pid: int) -> list[bytes]:
            """What stands behind the name in /proc/PID/stat: the name may hold anything."""
            try:
                with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - cheaper, and hot
                    return file.read().rpartition(b")")[2].split()
            except OSError:
                return []

        def _state(pid: int) -> bool | None:
            words = _stat(pid)
            return words[0] not in {b"Z", b"X", b"x"} if words else None

        def _facts(pid: int) -> tuple[int, int]:
            words = _stat(pid)
            return (int(words[1]), int(words[19])) if len(words) > 19 else (0, 0)
