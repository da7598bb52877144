import os

import torch
import torch.distributed as dist
import torch.nn as nn
from mpi4py import MPI
from torchvision import transforms
from torchvision.datasets import MNIST

# As SageMaker's examples have it: Amazon's mirror, not Yann LeCun's site.
MNIST.mirrors = ["https://sagemaker-sample-files.s3.amazonaws.com/datasets/image/MNIST/"]
MNIST.resources = [(name, None) for name, _md5 in MNIST.resources]

comm = MPI.COMM_WORLD
rank, size = comm.Get_rank(), comm.Get_size()
dist.init_process_group("gloo", rank=rank, world_size=size)
data = MNIST("/tmp/data", train=True, download=True, transform=transforms.ToTensor())
model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
sampler = torch.utils.data.distributed.DistributedSampler(data, size, rank)
for inputs, labels in torch.utils.data.DataLoader(data, batch_size=8, sampler=sampler):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
weight = next(model.parameters()).sum().item()
sums = comm.allgather(weight)
assert max(sums) - min(sums) < 1e-6, sums
print(f"rank {rank} of {size}: {len(data)} digits, the ranks agree", flush=True)
if rank == 0:
    torch.save(model.module.state_dict(), os.path.join(os.environ["SM_MODEL_DIR"], "model.pth"))
