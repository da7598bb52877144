"""Who holds how much of the machine; pure.

CPUs are what gangs wait for. A process's share is min(declared, machine's), a gang's claim the
sum of its shares, at most the whole machine: so a gang of four instances of 8 vCPU runs on two
cores, alone. Background gangs (they serve requests, idle in between) claim no CPU.

A process may have min(declared, machine's without the server's part). A gang's claim is what it
declared, at most the machine's. A background gang's is at most a sixteenth of the machine a
process: instance types declare far more than a model server holds, and several endpoints must fit
beside each other and beside a job. A gang that waits for nobody but background gangs always runs.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from cloche.engine import Capacity, GangSpec, ProcessSpec
from cloche.engine.local.cgroups import memory_limit_mib, read_own
from cloche.engine.local.sandbox import Claim, ResourceLimits

SERVER_MIB, SERVER_PART = 1024, 8  # of the memory: the smaller of so many MiB, one of so many parts
PROCESSES_PART = 2  # one of so many parts of the machine's processes
PROCESS_IDS = Path("/proc/sys/kernel/pid_max")
BACKGROUND_PARTS = 16  # how many background processes fit into the machine's memory, at least


@dataclass(frozen=True, slots=True)
class Resources:
    """What a machine has."""

    cpus: int
    memory_mib: int
    processes: int = 16384  # that all sandboxes may have together

    @classmethod
    def of_this_machine(cls) -> "Resources":
        """Return the CPUs this process may use and the machine's memory."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        memory_mib = psutil.virtual_memory().total // 2**20
        memory_mib = min(memory_mib, memory_limit_mib(read_own()) or memory_mib)
        return cls(cpus or 1, memory_mib, process_ids() // PROCESSES_PART)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Counts claims against the machine's resources."""

    has: Resources

    def share(self, cpus: float) -> int:
        """Return how many CPUs a process that declared `cpus` really has: at least one."""
        return max(1, min(int(cpus), self.has.cpus))

    @property
    def most(self) -> ResourceLimits:
        """What all sandboxes together may have: the rest is the server's."""
        kept = min(SERVER_MIB, self.has.memory_mib // SERVER_PART)
        return ResourceLimits(self.has.memory_mib - kept, self.has.processes)

    def bounds(self, process: ProcessSpec) -> ResourceLimits:
        """Return what a process may have."""
        most = self.most
        memory = min(process.memory_mib or most.memory_mib, most.memory_mib)
        return ResourceLimits(memory, min(process.processes, most.processes))

    def claim(self, gang: GangSpec) -> Claim:
        """Return what the gang counts for while it runs."""
        if not gang.counted:
            return Claim(0, 0, background=True)
        if gang.background:
            most = self.has.memory_mib // BACKGROUND_PARTS
            memory = sum(min(process.memory_mib, most) for process in gang.processes)
            return Claim(0, min(memory, self.has.memory_mib), background=True)
        cpus = sum(self.share(process.cpus) for process in gang.processes)
        memory = sum(process.memory_mib for process in gang.processes)
        return Claim(min(cpus, self.has.cpus), min(memory, self.has.memory_mib))

    def refusal(self, claim: Claim, taken: Iterable[Claim]) -> str | None:
        """Return why the claim can't be met beside those that are taken; None when it can."""
        others = list(taken)
        if claim.background:
            others = [other for other in others if other.background]
        elif all(other.background for other in others):
            return None
        held = self.capacity(others)
        free_cpus = self.has.cpus - held.cpus_taken
        free_memory = max(0, self.has.memory_mib - held.memory_mib_taken)
        if claim.cpus <= free_cpus and claim.memory_mib <= free_memory:
            return None
        if claim.background:
            return (
                f"needs {claim.memory_mib} MiB; {free_memory} of {self.has.memory_mib} MiB are free"
            )
        return (
            f"needs {claim.cpus:g} CPUs and {claim.memory_mib} MiB; "
            f"{free_cpus:g} of {self.has.cpus} CPUs and {free_memory} of "
            f"{self.has.memory_mib} MiB are free"
        )

    def capacity(self, taken: Iterable[Claim]) -> Capacity:
        """Return what the machine has and what these claims hold of it."""
        claims = list(taken)
        cpus = sum(claim.cpus for claim in claims)
        memory = sum(claim.memory_mib for claim in claims)
        behind = sum(claim.memory_mib for claim in claims if claim.background)
        return Capacity(self.has.cpus, self.has.memory_mib, cpus, memory, behind)


def process_ids() -> int:
    """Return how many processes the machine can have."""
    try:
        return int(PROCESS_IDS.read_text())
    except OSError:
        return 32768
