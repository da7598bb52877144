"""What the frozen backbone sees in the pictures of a folder: computed each time, or once and kept.

The backbone is frozen and its batch norm in evaluation mode, so a picture's features never change:
kept under the checkpoint folder they serve every epoch, and every later job with the same data.
"""

import hashlib
import json
import os
import tempfile
import time

import torch
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

TOLD_EVERY_S = 10
LAYOUT = 1  # of the files; a new number leaves older ones alone


class Shares:
    """This host's share of every global batch, as lists of (index, view).

    The sampler deals out one order to all hosts in turns, with a few pictures twice so that all
    get as many; those are left out again. So the batches are the same for any number of hosts.
    """

    def __init__(self, pictures, args, cluster, shuffle, views=1):
        self.count, self.batch_size, self.views = len(pictures), args.batch_size, views
        self.rank, self.ranks, self.epoch = cluster.rank, cluster.size, 1
        self.sampler = None
        if self.count:
            self.sampler = DistributedSampler(
                pictures, cluster.size, cluster.rank, shuffle=shuffle, seed=args.seed
            )

    def start(self, epoch):
        """Another order for each epoch; each picture's views take turns."""
        self.epoch = epoch
        if self.sampler is not None:
            self.sampler.set_epoch(epoch)

    def whole(self, number):
        """Return how many pictures batch `number` has on all hosts together."""
        return min(self.batch_size, self.count - number * self.batch_size)

    def __len__(self):
        return -(-self.count // self.batch_size)

    def __iter__(self):
        batches = [[] for _ in range(len(self))]
        for turn, index in enumerate(self.sampler or ()):
            place = turn * self.ranks + self.rank
            if place < self.count:
                view = (self.epoch - 1 + index) % self.views
                batches[place // self.batch_size].append((index, view))
        return iter(batches)


class Computed:
    """Batches of features, each computed when it is asked for."""

    def __init__(self, pictures, shares, model, workers):
        self.shares, self.model = shares, model
        self.loader = DataLoader(
            pictures, batch_sampler=shares, num_workers=workers, collate_fn=stack,
            persistent_workers=workers > 0,
        )  # fmt: skip

    def __iter__(self):
        for pictures, labels in self.loader:
            if pictures is None:
                yield torch.empty(0, self.model.head.in_features), labels
            else:
                yield self.model.features(pictures), labels


class Kept:
    """Batches of features that are all there."""

    def __init__(self, features, labels, shares):
        self.features, self.labels, self.shares = features, labels, shares

    def __iter__(self):
        for batch in self.shares:
            places = torch.tensor(batch, dtype=torch.long).reshape(-1, 2)
            indices, views = places[:, 0], places[:, 1]
            yield self.features[indices, views], self.labels[indices]


def stack(items):
    """Return pictures and labels as tensors; (None, no labels) for a share that has none."""
    if not items:
        return None, torch.empty(0, dtype=torch.long)
    return torch.stack([picture for picture, _ in items]), torch.tensor(
        [label for _, label in items]
    )


def keep(name, pictures, shares, model, cluster, folder, key, workers):
    """Return Kept features: found in the folder, else computed by all hosts and written there."""
    path = os.path.join(folder, "features", key, f"{name}.pt")
    shape = (len(pictures), shares.views, model.head.in_features)
    features = read(path, shape) if cluster.first else None
    if cluster.from_first(features is not None):
        cluster.say(f"Features of {name}: found in {path}")
        features = cluster.from_first(features)
    else:
        features = compute(name, pictures, shares.views, model, cluster, workers)
        if cluster.first:
            write(path, features)
    return Kept(features, torch.tensor(pictures.targets, dtype=torch.long), shares)


def compute(name, pictures, views, model, cluster, workers):
    """Return the features of all pictures: count x views x width. Each host computes its part."""
    mine = range(cluster.rank, len(pictures), cluster.size)
    todo = [(index, view) for index in mine for view in range(views)]
    loader = DataLoader(
        pictures, sampler=todo, batch_size=32, num_workers=workers, collate_fn=stack
    )
    parts, done, started = [torch.empty(0, model.head.in_features)], 0, time.monotonic()
    told = started
    for batch, _ in loader:
        parts.append(model.features(batch))
        done += len(batch)
        if time.monotonic() - told > TOLD_EVERY_S and done < len(todo):
            told = time.monotonic()
            print(f"Features of {name}: {done} of {len(todo)} pictures")
    found = torch.cat(parts).reshape(len(mine), views, model.head.in_features)
    features = cluster.rows(found, len(pictures))
    seconds = time.monotonic() - started
    cluster.say(f"Features of {name}: {len(pictures)} pictures, {views} views each, "
                f"in {seconds:.1f} s ({len(pictures) * views / seconds:.1f} images/s)")  # fmt: skip
    return features


def read(path, shape):
    """Return what another run left; None when there is nothing that fits."""
    try:
        features = torch.load(path, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:
        print(f"{path} can't be read ({error}): it is computed again")
        return None
    return features if isinstance(features, torch.Tensor) and features.shape == shape else None


def write(path, features):
    """Write the file whole or not at all; without it the next run takes longer."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, new = tempfile.mkstemp(prefix=".new-", dir=os.path.dirname(path))
        with os.fdopen(handle, "wb") as file:
            torch.save(features, file)
        os.chmod(new, 0o644)
        os.replace(new, path)
    except OSError as error:
        print(f"The features are not kept: {error}")


def listing(root, parts):
    """Return every picture's part, path within it and size in bytes, as JSON."""
    found = [
        (name, os.path.relpath(path, root), os.path.getsize(path))
        for name, pictures in parts.items()
        for path, _ in pictures.samples
    ]
    return json.dumps(found)


def key_of(model, size, views, files):
    """Return the name of a set of features: it changes with whatever they hang on."""
    digest = hashlib.sha256(json.dumps([LAYOUT, model.backbone, size, views, files]).encode())
    for name, tensor in sorted(model.body.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
