"""Instance types: what they declare, which have GPUs, and what is said of those here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InstanceType:
    """A scheduling unit: what the type declares (AWS's instance type pages)."""

    vcpu: int
    memory_gib: float
    gpus: int = 0

    @property
    def memory_mib(self) -> int:
        """Return the declared memory in MiB."""
        return round(self.memory_gib * 1024)


# Within a family the vCPU follow the size's name, and the memory follows the vCPU.
SIZES = {
    "large": 2,
    "xlarge": 4,
    "2xlarge": 8,
    "3xlarge": 12,
    "4xlarge": 16,
    "8xlarge": 32,
    "9xlarge": 36,
    "10xlarge": 40,
    "12xlarge": 48,
    "16xlarge": 64,
    "18xlarge": 72,
    "24xlarge": 96,
    "32xlarge": 128,
    "48xlarge": 192,
    "96xlarge": 384,
}
GIB_PER_VCPU = {
    "c4": 1.875,
    "c5": 2.0,
    "c5d": 2.0,
    "c5n": 2.625,
    "c6i": 2.0,
    "c6id": 2.0,
    "c7i": 2.0,
    "c7i-flex": 2.0,
    "c8i": 2.0,
    "c8i-flex": 2.0,
    "m4": 4.0,
    "m5": 4.0,
    "m5d": 4.0,
    "m6i": 4.0,
    "m6id": 4.0,
    "m7i": 4.0,
    "m7i-flex": 4.0,
    "m8i": 4.0,
    "m8i-flex": 4.0,
    "r5": 8.0,
    "r5d": 8.0,
    "r6i": 8.0,
    "r6id": 8.0,
    "r7i": 8.0,
    "r8i": 8.0,
    "r8i-flex": 8.0,
}
IRREGULAR = {  # those that do not follow their size's name
    "ml.c4.8xlarge": InstanceType(36, 60),
    "ml.c5n.9xlarge": InstanceType(36, 96),
    "ml.c5n.18xlarge": InstanceType(72, 192),
    "ml.t2.medium": InstanceType(2, 4),
    "ml.t2.large": InstanceType(2, 8),
    "ml.t2.xlarge": InstanceType(4, 16),
    "ml.t2.2xlarge": InstanceType(8, 32),
    "ml.t3.medium": InstanceType(2, 4),
    "ml.t3.large": InstanceType(2, 8),
    "ml.t3.xlarge": InstanceType(4, 16),
    "ml.t3.2xlarge": InstanceType(8, 32),
}
CPU_TYPES: Mapping[str, InstanceType] = {
    f"ml.{family}.{size}": InstanceType(vcpu, vcpu * gib)
    for family, gib in GIB_PER_VCPU.items()
    for size, vcpu in SIZES.items()
} | IRREGULAR
# Instances with GPUs: vCPU, GiB, GPUs (AWS's accelerated computing pages). Their code runs on this
# machine's CPUs.
GPU_TYPES: Mapping[str, tuple[int, int, int]] = {
    "p2.xlarge": (4, 61, 1),
    "p2.8xlarge": (32, 488, 8),
    "p2.16xlarge": (64, 732, 16),
    "p3.2xlarge": (8, 61, 1),
    "p3.8xlarge": (32, 244, 4),
    "p3.16xlarge": (64, 488, 8),
    "p3dn.24xlarge": (96, 768, 8),
    "p4d.24xlarge": (96, 1152, 8),
    "p4de.24xlarge": (96, 1152, 8),
    "p5.4xlarge": (16, 256, 1),
    "p5.48xlarge": (192, 2048, 8),
    "p5e.48xlarge": (192, 2048, 8),
    "p5en.48xlarge": (192, 2048, 8),
    "p6-b200.48xlarge": (192, 2048, 8),
    "p6-b300.48xlarge": (192, 4096, 8),
    "p6e-gb200.36xlarge": (144, 960, 4),
    "g7e.12xlarge": (48, 512, 2),
    "g7e.24xlarge": (96, 1024, 4),
    "g7e.48xlarge": (192, 2048, 8),
    **{
        f"{family}.{size}": (SIZES[size], SIZES[size] * gib, gpus)
        for families, gib, sizes in (
            (("g4dn",), 4, {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1}),
            (("g4dn",), 4, {"12xlarge": 4, "16xlarge": 1}),
            (("g5", "g6"), 4, {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1}),
            (("g5", "g6"), 4, {"12xlarge": 4, "16xlarge": 1, "24xlarge": 4, "48xlarge": 8}),
            (("g6e",), 8, {"xlarge": 1, "2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "16xlarge": 1}),
            (("g6e",), 8, {"12xlarge": 4, "24xlarge": 4, "48xlarge": 8}),
            (("g7",), 4, {"2xlarge": 1, "4xlarge": 1, "8xlarge": 1, "12xlarge": 2}),
            (("g7",), 4, {"24xlarge": 4, "48xlarge": 8}),
            (("g7e",), 8, {"2xlarge": 1, "4xlarge": 1, "8xlarge": 1}),
        )
        for family in families
        for size, gpus in sizes.items()
    },
}
INSTANCE_TYPES: Mapping[str, InstanceType] = {
    **CPU_TYPES,
    **{f"ml.{name}": InstanceType(*declared) for name, declared in GPU_TYPES.items()},
}


def stands_in(name: str, gpu_instances: str) -> bool:
    """Tell whether this machine stands in for an instance type.

    gpu_instances: what `cloche up` was told of those with GPUs.
    """
    kind = INSTANCE_TYPES.get(name)
    return kind is not None and (not kind.gpus or gpu_instances != "refuse")


def with_gpus(names: Iterable[str]) -> list[str]:
    """Return those of some types that have GPUs, each once."""
    return [name for name in dict.fromkeys(names) if INSTANCE_TYPES[name].gpus]


def in_log(names: Iterable[str]) -> str:
    """Return what the first line of a log adds about types with GPUs; else nothing."""
    found = with_gpus(names)
    if not found:
        return ""
    return f"; on the CPUs of this machine, without the GPUs of {', '.join(found)} (SM_NUM_GPUS=0)"


def in_status(message: str, names: Iterable[str]) -> str:
    """Return a job's status message, with what there is to say about types with GPUs."""
    found = with_gpus(names)
    return f"{message} ({', '.join(found)} without GPUs, on CPUs)" if found else message
