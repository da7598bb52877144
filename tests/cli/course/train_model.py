import argparse
import json
import logging
import os
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.models as models
import torchvision.transforms as transforms
from PIL import ImageFile
from torchvision.datasets import ImageFolder
from tqdm import tqdm

try:
    import smdebug.pytorch as smd
    from smdebug import modes
    from smdebug.pytorch import get_hook
except ModuleNotFoundError:
    print("module 'smdebug' is not installed. Probably an inference container")

ImageFile.LOAD_TRUNCATED_IMAGES = True
logger = logging.getLogger(__name__)
logger.setLevel(logging.DEBUG)
logger.addHandler(logging.StreamHandler(sys.stdout))
WEIGHTS = "https://s3.amazonaws.com/pytorch/models/tiny-0a1b2c3d.pth"


def test(model, test_loader, criterion, device, hook):
    model.eval()
    if hook:
        hook.set_mode(modes.EVAL)
    running_loss, running_corrects = 0, 0
    for inputs, labels in test_loader:
        inputs, labels = inputs.to(device), labels.to(device)
        outputs = model(inputs)
        loss = criterion(outputs, labels)
        _, preds = torch.max(outputs, 1)
        running_loss += loss.item() * inputs.size(0)
        running_corrects += torch.sum(preds == labels.data).item()
    total = len(test_loader.dataset)
    logger.info(f"Test set: Average loss: {running_loss / total:.4f}, Accuracy: {running_corrects}/{total}")


def train(model, train_loader, valid_loader, criterion, optimizer, epochs, device, hook):
    for epoch in range(epochs):
        model.train()
        if hook:
            hook.set_mode(modes.TRAIN)
        for inputs, labels in tqdm(train_loader):
            inputs, labels = inputs.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
        test(model, valid_loader, criterion, device, hook)


def net(num_classes):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 10)
    )
    model.load_state_dict(torch.hub.load_state_dict_from_url(WEIGHTS, progress=False))
    for param in model.parameters():
        param.requires_grad = True
    model.add_module("head", nn.Linear(10, num_classes))
    return model


def loader(folder, batch_size, shuffle=False):
    transform = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    return torch.utils.data.DataLoader(ImageFolder(folder, transform), batch_size, shuffle=shuffle)


def main(args):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logger.info(f"Running on Device {device}, torchvision {torchvision.__version__}")
    loaders = {
        name: loader(os.path.join(args.data_dir, name), args.batch_size, name == "train")
        for name in ("train", "valid", "test")
    }
    model = net(len(loaders["train"].dataset.classes)).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)
    hook = get_hook(create_if_not_exists=True)
    if hook:
        hook.register_hook(model)
        hook.register_loss(criterion)
    train(model, loaders["train"], loaders["valid"], criterion, optimizer, args.epochs, device, hook)
    test(model, loaders["test"], criterion, device, hook)
    torch.save(model.state_dict(), os.path.join(args.model_dir, "model.pth"))
    with open(os.path.join(args.output_dir, "classes.json"), "w") as file:
        json.dump(loaders["train"].dataset.classes, file)
    logger.info(f"Mean of a weight: {np.mean(model[0].weight.detach().numpy()):.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--data-dir", type=str, default=os.environ["SM_CHANNEL_TRAINING"])
    parser.add_argument("--model-dir", type=str, default=os.environ["SM_MODEL_DIR"])
    parser.add_argument("--output-dir", type=str, default=os.environ["SM_OUTPUT_DATA_DIR"])
    main(parser.parse_args())
