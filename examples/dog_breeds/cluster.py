"""The hosts that train together, joined as AWS's sample pytorch_mnist/mnist.py does; or just one.

SageMaker starts the same script on every host. Rank 0 is the first of SM_HOSTS; MASTER_ADDR and
MASTER_PORT lead there. torchrun (distribution torch_distributed) says RANK and WORLD_SIZE itself.
"""

import hashlib
import os

import torch
import torch.distributed as dist

MASTER_PORT = "7777"


class Cluster:
    """This process among `size` equal ones; all of them call its methods in the same order."""

    def __init__(self, rank=0, size=1):
        self.rank, self.size = rank, size

    @classmethod
    def join(cls, hosts, current_host, backend):
        """Meet the other hosts; returns when all are there."""
        if "WORLD_SIZE" in os.environ:  # torchrun
            rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        else:
            rank, size = (hosts.index(current_host), len(hosts)) if hosts else (0, 1)
        if size > 1:
            os.environ.setdefault("MASTER_ADDR", hosts[0] if hosts else "")
            os.environ.setdefault("MASTER_PORT", MASTER_PORT)
            dist.init_process_group(backend=backend, rank=rank, world_size=size)
            print(f"Rank {dist.get_rank()} of {dist.get_world_size()} ({backend}); "
                  f"rank 0 is {os.environ['MASTER_ADDR']}")  # fmt: skip
        return cls(rank, size)

    @property
    def first(self):
        """Whether this is rank 0, which writes down what all have found."""
        return self.rank == 0

    def say(self, text):
        """Print once, not once a host: the platform reads metrics from the logs of all."""
        if self.first:
            print(text)

    def totals(self, *numbers):
        """Return each number summed over all hosts."""
        if self.size == 1:
            return numbers
        both = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(both)
        return tuple(both.tolist())

    def from_first(self, value):
        """Return what rank 0 has as `value`: anything that can be pickled."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def same_model(self, model):
        """Give every host the weights of rank 0."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                sent = tensor.detach().contiguous()
                dist.broadcast(sent, src=0)
                tensor.copy_(sent)

    def add_gradients(self, parameters):
        """Sum the gradients of all hosts: each divided its own by the size of the whole batch."""
        if self.size > 1:
            for parameter in parameters:
                dist.all_reduce(parameter.grad)

    def rows(self, mine, count):
        """Return `count` rows in order: rank r has rows r, r + size, r + 2 * size, …"""
        if self.size == 1:
            return mine
        each = -(-count // self.size)
        padded = mine.new_zeros((each, *mine.shape[1:]))
        padded[: len(mine)] = mine
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:count].clone()

    def require_same(self, what, text):
        """Exit unless all hosts hold the same text."""
        if self.size > 1:
            digests = [None] * self.size
            dist.all_gather_object(digests, hashlib.sha256(text.encode()).hexdigest())
            if len(set(digests)) > 1:
                self.leave()  # else the first to exit may break another's connection: abort, no line
                raise SystemExit(
                    f"The hosts do not have the same {what}: every host needs all of them "
                    "(S3DataDistributionType FullyReplicated)"
                )

    def leave(self):
        """Wait for the others, then part."""
        if self.size > 1:
            dist.barrier()
            dist.destroy_process_group()
