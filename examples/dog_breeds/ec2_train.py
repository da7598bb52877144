"""Train the classifier on a plain machine: no platform, no arguments, one process.

Expects `dogImages/{train,valid,test}/CLASS/*` in the current folder, leaves
`TrainedModels/model.pth`. Run it as `python ec2_train.py`.
"""

import os
import time

# Threads that wait for one another sleep instead of spinning: on a busy machine that makes several
# times the speed. It is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from PIL import ImageFile
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from network import Classifier, pretrained_weights
from pictures import load, to_tensor

DATA = "dogImages"
SIZE = int(os.environ.get("IMAGE_SIZE", "224"))  # pixels, a multiple of 32
BATCH_SIZE = 32
EPOCHS = 2
LEARNING_RATE = 0.003
PROGRESS_S = 5  # between two lines of progress

# A few photographs of the public dog data set lack their last bytes; what is there is enough.
ImageFile.LOAD_TRUNCATED_IMAGES = True
torch.manual_seed(0)


def pictures(split, classes=None):
    folder = ImageFolder(
        os.path.join(DATA, split),
        transform=lambda image: to_tensor(image, SIZE),
        loader=load,
    )
    if classes is not None and folder.classes != classes:
        raise SystemExit(f"{DATA}/{split} and {DATA}/train do not have the same classes")
    return folder


train = pictures("train")
valid, test = pictures("valid", train.classes), pictures("test", train.classes)

backbone, weights = pretrained_weights("auto")
model = Classifier(backbone, len(train.classes))
model.body.load_state_dict(weights)
optimizer = torch.optim.Adam(model.head.parameters(), lr=LEARNING_RATE)


def once(folder, learn, name):
    """Go over all pictures of a folder; return the mean loss and the part that was right."""
    model.train(learn)
    loss_sum, right, seen, printed = 0.0, 0, 0, time.monotonic()
    for batch, labels in DataLoader(folder, batch_size=BATCH_SIZE, shuffle=learn):
        scores = model(batch)
        loss = nn.functional.cross_entropy(scores, labels)
        if learn:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_sum += loss.item() * len(labels)
        right += (scores.argmax(1) == labels).sum().item()
        seen += len(labels)
        if time.monotonic() - printed > PROGRESS_S:
            printed = time.monotonic()
            print(f"{name}: {seen} of {len(folder)} pictures")
    return loss_sum / len(folder), right / len(folder)


print(f"Starting Model Training: {len(train)} pictures of {len(train.classes)} classes")
for epoch in range(1, EPOCHS + 1):
    loss, accuracy = once(train, learn=True, name=f"Epoch {epoch}/{EPOCHS}")
    print(f"Epoch {epoch}/{EPOCHS}: Training Loss: {loss:.4f}, Training Accuracy: {accuracy:.4f}")
    loss, accuracy = once(valid, learn=False, name="Validation")
    print(f"Validation Loss: {loss:.4f}, Validation Accuracy: {accuracy:.4f}")
loss, accuracy = once(test, learn=False, name="Test")
print(f"Testing Loss: {loss:.4f}, Testing Accuracy: {accuracy:.4f}")

os.makedirs("TrainedModels", exist_ok=True)
torch.save(model.state_dict(), os.path.join("TrainedModels", "model.pth"))
print("saved")
