"""How many cores there are, and what OpenMP's threads do; importing the package comes here first.

By default OpenMP's threads spin while they wait: they occupy cores that other processes, or the
threads that they wait for, could use, and beside other busy processes a step takes many times as
long. There are as many of them as cores, also where a container may use fewer. And they do not
survive a fork: a child that has more than one hangs. OpenMP reads the variables once, when torch
loads it. Child processes inherit them. A value that the user has set stays.
"""

import math
import os
import sys
from contextlib import suppress
from pathlib import Path

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # a container or `taskset` may grant fewer
        return min(len(os.sched_getaffinity(0)), cpu_quota())
    return os.cpu_count() or 1


def cpu_quota() -> int:
    """Return the number of cores that control groups (Linux's, of containers) grant, rounded up.

    It is the smallest quota of this process' group and those above. Without one it is sys.maxsize.
    Source: admin-guide/cgroup-v2 and scheduler/sched-bwc of Linux's documentation.
    """
    quotas = [sys.maxsize]
    lines = _OWN.read_text().splitlines() if _OWN.exists() else []
    for _, kinds, own in (line.split(":", 2) for line in lines):
        if kinds and "cpu" not in kinds.split(","):  # of version 2, they are empty
            continue
        group = _CGROUPS / ("cpu" if kinds else "") / own.lstrip("/")
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if kinds else ("cpu.max",)
        for folder in (group, *group.parents):
            with suppress(OSError):  # the path may be the host's, and not be in its container
                quota, period = " ".join((folder / file).read_text() for file in files).split()
                if quota.isdigit():  # otherwise "max" or -1
                    quotas.append(math.ceil(int(quota) / int(period)))
    return min(quotas)


def set_variables() -> None:
    """Set OpenMP's variables, where the user has not: threads sleep, and heed a quota."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if "OMP_NUM_THREADS" not in os.environ and usable_cores() == cpu_quota():
        os.environ["OMP_NUM_THREADS"] = str(cpu_quota())
        if torch := sys.modules.get("torch"):  # which has read it already
            torch.set_num_threads(cpu_quota())


def _one_thread() -> None:
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


set_variables()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)
