"""Train a classifier of pictures by transfer learning: a frozen backbone and a new head.

The training channel holds `train/CLASS/*`, `valid/CLASS/*` and `test/CLASS/*`. Runs as a SageMaker
training job, and as a plain script: `python hpo.py --data DIR --model-dir DIR --output-data-dir DIR`.
"""

import os

# Threads that wait for one another leave the CPU to the loader's processes instead of spinning: on
# two busy cores that makes several times the speed. It is read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import random
import sys
import time

import numpy as np
import torch
from PIL import ImageFile
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from network import BACKBONES, Classifier, pretrained_weights
from pictures import load, to_tensor

# A few photographs of the public dog data set lack their last bytes; what is there is enough.
ImageFile.LOAD_TRUNCATED_IMAGES = True


class Pictures(ImageFolder):
    """The pictures of one folder, labelled by the classes of the train folder.

    A valid or test folder may lack a class, or have few; the numbers stay the same.
    """

    def __init__(self, root, size, classes=None):
        self.wanted = classes
        super().__init__(root, transform=Shape(size), loader=load, allow_empty=classes is not None)

    def find_classes(self, directory):
        found, numbers = super().find_classes(directory)
        if self.wanted is None:
            return found, numbers
        unknown = sorted(set(found) - set(self.wanted))
        if unknown:
            raise ValueError(f"{directory} has classes that the train folder lacks: {unknown[:5]}")
        return self.wanted, {name: number for number, name in enumerate(self.wanted)}


class Shape:
    """A picture to a tensor of 3 x size x size; a class, so that loader processes can take it."""

    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        return to_tensor(image, self.size)


def main():
    args = parse(sys.argv[1:])
    if len(args.hosts) > 1:
        sys.exit(f"This script trains on one instance; this job has {len(args.hosts)}")
    cpus = int(os.environ.get("SM_NUM_CPUS") or os.cpu_count() or 1)
    torch.set_num_threads(cpus)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)

    train, valid, test = loaders(args, cpus)
    classes = train.dataset.classes
    counts = [len(loader.dataset) for loader in (train, valid, test)]
    print(f"Data: {len(classes)} classes; {counts[0]} pictures to train on, "
          f"{counts[1]} to validate, {counts[2]} to test; {cpus} CPUs")  # fmt: skip
    backbone, weights = pretrained_weights(args.backbone)
    model = Classifier(backbone, len(classes))
    model.body.load_state_dict(weights)

    history = {"backbone": backbone, "classes": len(classes), "epochs": []}
    optimizer = torch.optim.Adam(model.head.parameters(), lr=args.learning_rate)
    for epoch in range(1, args.epochs + 1):
        name = f"Epoch {epoch}/{args.epochs}"
        started = time.monotonic()
        loss, accuracy = run(model, train, name, optimizer)
        seconds = time.monotonic() - started
        print(f"{name}: Training Loss: {loss:.4f}, Training Accuracy: {accuracy:.4f} "
              f"({counts[0] / seconds:.1f} images/s)")  # fmt: skip
        valid_loss, valid_accuracy = run(model, valid, f"{name} validation")
        print(f"Validation Loss: {valid_loss:.4f}")
        print(f"Validation Accuracy: {valid_accuracy:.4f}")
        history["epochs"].append({
            "epoch": epoch, "seconds": seconds, "train_loss": loss, "train_accuracy": accuracy,
            "valid_loss": valid_loss, "valid_accuracy": valid_accuracy,
        })  # fmt: skip
        write_json(args.output_data_dir, "history.json", history)

    test_loss, test_accuracy = run(model, test, "Test")
    print(f"Testing Loss: {test_loss:.4f}")
    print(f"Testing Accuracy: {test_accuracy:.4f}")
    history["test"] = {"loss": test_loss, "accuracy": test_accuracy}
    write_json(args.output_data_dir, "history.json", history)
    save(model, classes, args)


def parse(argv):
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--batch_size", type=positive, default=32)
    parser.add_argument("--epochs", type=positive, default=5)
    parser.add_argument("--backbone", choices=(*BACKBONES, "auto"), default="auto",
                        help="auto: resnet50 where its weights can be downloaded")  # fmt: skip
    parser.add_argument("--image_size", type=positive, default=224, help="a multiple of 32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo",
                        help="how several hosts talk to each other")  # fmt: skip
    parser.add_argument("--hosts", type=json.loads, default=json.loads(env("SM_HOSTS", "[]")))
    parser.add_argument("--current-host", default=env("SM_CURRENT_HOST", ""))
    parser.add_argument("--data", default=env("SM_CHANNEL_TRAINING"))
    parser.add_argument("--model-dir", default=env("SM_MODEL_DIR", "model"))
    parser.add_argument("--output-data-dir", default=env("SM_OUTPUT_DATA_DIR", "output"))
    args = parser.parse_args(argv)
    if args.data is None:
        parser.error("--data is needed where SM_CHANNEL_TRAINING is not set")
    if args.image_size % 32:
        parser.error(f"--image_size must be a multiple of 32, not {args.image_size}")
    return args


def positive(text):
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def loaders(args, cpus):
    """Return what gives the train, valid and test pictures in batches."""
    train = Pictures(os.path.join(args.data, "train"), args.image_size)
    rest = [
        Pictures(os.path.join(args.data, name), args.image_size, train.classes)
        for name in ("valid", "test")
    ]
    # Reading pictures is a small part of the work: more processes than this only take turns.
    workers = min(cpus, 4) if cpus > 1 else 0
    order = torch.Generator().manual_seed(args.seed)
    shared = {"batch_size": args.batch_size, "num_workers": workers}
    return (
        DataLoader(train, shuffle=True, generator=order, persistent_workers=workers > 0, **shared),
        *(DataLoader(pictures, **shared) for pictures in rest),
    )


def run(model, loader, name, optimizer=None):
    """Go once over all pictures, learning if there is an optimizer.

    Returns the mean loss and the part that was right, over all pictures.
    """
    model.train(optimizer is not None)
    total = len(loader.dataset)
    loss_sum, right, seen, told = 0.0, 0, 0, time.monotonic()
    for pictures, labels in loader:
        scores = model.head(model.features(pictures))
        loss = nn.functional.cross_entropy(scores, labels)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss_sum += loss.item() * len(labels)
        right += (scores.argmax(1) == labels).sum().item()
        seen += len(labels)
        if time.monotonic() - told > 10 and seen < total:
            told = time.monotonic()
            print(f"{name}: {seen} of {total} pictures, mean loss so far {loss_sum / seen:.4f}")
    return loss_sum / total, right / total


def save(model, classes, args):
    """Keep the weights, and what is needed to use them: backbone, picture size, class names."""
    os.makedirs(args.model_dir, exist_ok=True)
    torch.save(model.state_dict(), os.path.join(args.model_dir, "model.pth"))
    write_json(args.model_dir, "model.json", {
        "backbone": model.backbone, "image_size": args.image_size, "classes": classes,
    })  # fmt: skip
    print(f"Saved the model to {args.model_dir}")


def write_json(folder, name, content):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as file:
        json.dump(content, file, indent=2)


if __name__ == "__main__":
    main()
