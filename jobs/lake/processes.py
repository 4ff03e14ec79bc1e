"""Processes of this and of other machines: which there are, and whether one is still there."""

import getpass
import os
import socket
from datetime import timedelta
from pathlib import Path


def this_process() -> str:
    """The host, the number of this process, and when it began: no other process has all three."""
    return f"{socket.gethostname()} {os.getpid()} {began(os.getpid())}"


def began(pid: int) -> str:
    """When a process began, in the system's own count (field 22 of proc(5)); `-` where it does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return "-"


def process_space() -> str:
    """Return the space in which numbers of processes count: that of a container, or of a machine, since it started.

    '' where the system does not tell.
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + "/" + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def is_gone(process: str, space: str, unheard_of: timedelta, silence: timedelta) -> bool:
    """Return whether a process is gone: one of this host and space that is not there, another after so long a silence.

    unheard_of: how long ago it last gave a sign of itself.
    """
    host, pid, began_at = process.split(" ")
    if host != socket.gethostname() or space != process_space():
        return unheard_of > silence
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's process
    return began(int(pid)) != began_at


def user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
