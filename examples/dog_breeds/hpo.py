"""Train a classifier of pictures by transfer learning: a frozen backbone and a new head.

The training channel holds `train/CLASS/*`, `valid/CLASS/*` and `test/CLASS/*`. Runs as a SageMaker
training job on one or several hosts, and as a plain script:
`python hpo.py --data DIR --model-dir DIR --output-data-dir DIR`.
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
from torchvision.datasets import ImageFolder

from cluster import Cluster
from features import Computed, Shares, keep, key_of, listing
from network import BACKBONES, Classifier, pretrained_weights
from pictures import load, to_tensor, to_view

# A few photographs of the public dog data set lack their last bytes; what is there is enough.
ImageFile.LOAD_TRUNCATED_IMAGES = True


class Pictures(ImageFolder):
    """The pictures of one folder, labelled by the classes of the train folder.

    A valid or test folder may lack a class, or have few; the numbers stay the same. Picture
    [index, view] is a tensor of 3 x size x size and its label; view 0 is the picture as it is.
    """

    def __init__(self, root, size, classes=None):
        self.size, self.wanted = size, classes
        super().__init__(root, loader=load, allow_empty=classes is not None)

    def __getitem__(self, place):
        index, view = place
        path, label = self.samples[index]
        picture = self.loader(path)
        if view == 0:
            return to_tensor(picture, self.size), label
        return to_view(picture, self.size, random.Random(f"{index} {view}")), label

    def find_classes(self, directory):
        found, numbers = super().find_classes(directory)
        if self.wanted is None:
            return found, numbers
        unknown = sorted(set(found) - set(self.wanted))
        if unknown:
            raise ValueError(f"{directory} has classes that the train folder lacks: {unknown[:5]}")
        return self.wanted, {name: number for number, name in enumerate(self.wanted)}


def main():
    args = parse(sys.argv[1:])
    cpus = int(os.environ.get("SM_NUM_CPUS") or os.cpu_count() or 1)
    torch.set_num_threads(cpus)
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    cluster = Cluster.join(args.hosts, args.current_host, args.backend)

    folders = read_folders(args)
    files = listing(args.data, folders)
    cluster.require_same("pictures", files)
    classes = folders["train"].classes
    counts = [len(pictures) for pictures in folders.values()]
    cluster.say(f"Data: {len(classes)} classes; {counts[0]} pictures to train on, {counts[1]} to "
                f"validate, {counts[2]} to test; {cpus} CPUs")  # fmt: skip
    model = make_model(args, cluster, len(classes))
    parts = batches(args, folders, files, model, cluster, cpus)

    history = {"backbone": model.backbone, "classes": len(classes), "epochs": []}
    optimizer = torch.optim.Adam(model.head.parameters(), lr=args.learning_rate)
    for epoch in range(1, args.epochs + 1):
        name = f"Epoch {epoch}/{args.epochs}"
        started = time.monotonic()
        parts["train"].shares.start(epoch)
        loss, accuracy = run(model, cluster, parts["train"], name, optimizer)
        seconds = time.monotonic() - started
        cluster.say(f"{name}: Training Loss: {loss:.4f}, Training Accuracy: {accuracy:.4f} "
                    f"({counts[0] / seconds:.1f} images/s)")  # fmt: skip
        valid_loss, valid_accuracy = run(model, cluster, parts["valid"], f"{name} validation")
        cluster.say(f"Validation Loss: {valid_loss:.4f}")
        cluster.say(f"Validation Accuracy: {valid_accuracy:.4f}")
        history["epochs"].append({
            "epoch": epoch, "seconds": seconds, "train_loss": loss, "train_accuracy": accuracy,
            "valid_loss": valid_loss, "valid_accuracy": valid_accuracy,
        })  # fmt: skip
        if cluster.first:
            write_json(args.output_data_dir, "history.json", history)

    test_loss, test_accuracy = run(model, cluster, parts["test"], "Test")
    cluster.say(f"Testing Loss: {test_loss:.4f}")
    cluster.say(f"Testing Accuracy: {test_accuracy:.4f}")
    history["test"] = {"loss": test_loss, "accuracy": test_accuracy}
    if cluster.first:
        write_json(args.output_data_dir, "history.json", history)
        save(model, classes, args)
    cluster.leave()


def parse(argv):
    env = os.environ.get
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--batch_size", type=positive, default=32,
                        help="of all hosts together: each takes its share")  # fmt: skip
    parser.add_argument("--epochs", type=positive, default=5)
    parser.add_argument("--backbone", choices=(*BACKBONES, "auto"), default="auto",
                        help="auto: resnet50 where its weights can be downloaded")  # fmt: skip
    parser.add_argument("--image_size", type=positive, default=224, help="a multiple of 32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--views", type=positive, default=1,
                        help="crops and flips of each training picture, in turns")  # fmt: skip
    parser.add_argument("--cache-features", type=yes, nargs="?", const=True, default=True,
                        help="compute the frozen backbone's features once (default)")  # fmt: skip
    parser.add_argument("--no-cache-features", dest="cache_features", action="store_false",
                        help="compute it in every epoch")  # fmt: skip
    parser.add_argument("--backend", choices=("gloo", "nccl"), default="gloo",
                        help="how several hosts talk to each other")  # fmt: skip
    parser.add_argument("--hosts", type=json.loads, default=json.loads(env("SM_HOSTS", "[]")))
    parser.add_argument("--current-host", default=env("SM_CURRENT_HOST", ""))
    parser.add_argument("--data", default=env("SM_CHANNEL_TRAINING"))
    parser.add_argument("--model-dir", default=env("SM_MODEL_DIR", "model"))
    parser.add_argument("--output-data-dir", default=env("SM_OUTPUT_DATA_DIR", "output"))
    parser.add_argument("--checkpoint_dir", default=checkpoints(),
                        help="where features are kept for later runs")  # fmt: skip
    args = parser.parse_args(argv)
    args.checkpoint_dir = args.checkpoint_dir or args.output_data_dir
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


def yes(text):
    """Return the truth of a hyperparameter: SageMaker passes them all as `--key value`."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"must be true or false, not {text}")
    return text.lower() == "true"


def checkpoints():
    """Return the folder that SageMaker keeps in S3 if the job has a CheckpointConfig, or None."""
    default = "/opt/ml/checkpoints"
    return os.environ.get("SM_CHECKPOINT_DIR") or (default if os.path.isdir(default) else None)


def read_folders(args):
    """Return the pictures of train, valid and test."""
    train = Pictures(os.path.join(args.data, "train"), args.image_size)
    return {"train": train} | {
        name: Pictures(os.path.join(args.data, name), args.image_size, train.classes)
        for name in ("valid", "test")
    }


def make_model(args, cluster, classes):
    """Return the same model on all hosts: rank 0 finds the weights and gives them to the others."""
    backbone, weights = pretrained_weights(args.backbone) if cluster.first else (None, None)
    backbone = cluster.from_first(backbone)
    model = Classifier(backbone, classes)
    if cluster.first:
        model.body.load_state_dict(weights)
    cluster.same_model(model)
    return model.eval()


def batches(args, folders, files, model, cluster, cpus):
    """Return this host's share of the batches of train, valid and test."""
    # Reading pictures is a small part of the work: more processes than this only take turns.
    workers = min(cpus, 4) if cpus > 1 else 0
    shares = {
        name: Shares(pictures, args, cluster, name == "train", args.views if name == "train" else 1)
        for name, pictures in folders.items()
    }
    if not args.cache_features:
        return {name: Computed(folders[name], shares[name], model, workers) for name in folders}
    cluster.say("The backbone is frozen, its batch norm in evaluation mode: what it sees in the "
                "pictures is computed once (--no-cache-features: every time)")  # fmt: skip
    key = key_of(model, args.image_size, args.views, files)
    return {
        name: keep(
            name, folders[name], shares[name], model, cluster, args.checkpoint_dir, key, workers
        )
        for name in folders
    }


def run(model, cluster, part, name, optimizer=None):
    """Go once over all pictures, learning if there is an optimizer.

    Returns the mean loss and the part that was right, over all pictures of all hosts.
    """
    model.train(optimizer is not None)
    loss_sum, right, seen, told = 0.0, 0, 0, time.monotonic()
    for number, (features, labels) in enumerate(part):
        scores = model.head(features)
        loss = nn.functional.cross_entropy(scores, labels, reduction="sum")
        if optimizer is not None:
            optimizer.zero_grad()
            (loss / part.shares.whole(number)).backward()
            cluster.add_gradients(model.head.parameters())
            optimizer.step()
        loss_sum += loss.item()
        right += (scores.argmax(1) == labels).sum().item()
        seen += len(labels)
        if time.monotonic() - told > 10 and seen:
            told = time.monotonic()
            print(f"{name}: {seen} pictures so far, mean loss {loss_sum / seen:.4f}")
    loss_sum, right, seen = cluster.totals(loss_sum, right, seen)
    return loss_sum / seen, right / seen


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
