"""What is said beside the error of a script that asked for a GPU: there is none here."""

from __future__ import annotations

import re

# What PyTorch says where a script asked for what needs a GPU, and what works here instead.
HINTS = (
    (
        re.compile(
            r"NCCL built in|ProcessGroupNCCL is only supported with GPUs|ncclUnhandledCudaError"
            r"|Backend nccl\b.*(?:requires|not available)|NCCL is not available"
        ),
        "The backend nccl needs GPUs, and there are none here: use the backend gloo, "
        "torch.distributed.init_process_group('gloo').",
    ),
    (
        re.compile(
            r"Torch not compiled with CUDA enabled|No CUDA GPUs are available"
            r"|Found no NVIDIA driver|on a CUDA device but torch\.cuda\.is_available\(\) is False"
        ),
        "There are no GPUs here, whatever the instance type: choose the device by "
        "torch.device('cuda' if torch.cuda.is_available() else 'cpu').",
    ),
)


def hint(text: str) -> str:
    """Return what to do instead, for an error that the lack of a GPU explains; else nothing."""
    return next((words for pattern, words in HINTS if pattern.search(text)), "")
