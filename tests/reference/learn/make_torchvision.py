"""What torchvision 0.26 makes of its own ResNets: first weights, decayed parameters, logits.

    python3 tests/reference/learn/make_torchvision.py     (needs torchvision; writes torchvision.json beside itself)

The networks of the reference are torchvision's, with two changes for small images: another first
convolution and no max-pool. Logits are of weights and images made by the formula `fill`.
"""

import contextlib
import json
import pathlib

import torch
import torchvision
from networks import fill, fill_network
from torch import nn

torch.set_num_threads(1)
FEATURES = {"resnet18": 512, "resnet34": 512, "resnet50": 2048}


@contextlib.contextmanager
def recorded_draws():
    """Which distribution each parameter was drawn from last, by the identity of the parameter."""
    draws = {}
    originals = {"normal": torch.Tensor.normal_, "uniform": torch.Tensor.uniform_}

    def normal(tensor, mean=0.0, std=1.0, **others):
        draws[id(tensor)] = ["normal", float(std)]
        return originals["normal"](tensor, mean, std, **others)

    def uniform(tensor, low=0.0, high=1.0, **others):
        draws[id(tensor)] = ["uniform", float(high)]
        return originals["uniform"](tensor, low, high, **others)

    torch.Tensor.normal_, torch.Tensor.uniform_ = normal, uniform
    try:
        yield draws
    finally:
        torch.Tensor.normal_, torch.Tensor.uniform_ = originals["normal"], originals["uniform"]


def encoder(architecture, classes):
    """torchvision's network, with the reference's stem for small images unless it is the 224-pixel one."""
    base, _, size = architecture.partition("-")
    network = getattr(torchvision.models, base)(num_classes=classes)
    if size != "224":
        network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        network.maxpool = nn.Identity()
    return network


def simclr(architecture):
    """The encoder with the projection head of the reference."""
    network = encoder(architecture, 10)
    del network.fc
    width = FEATURES[architecture.partition("-")[0]]
    network.projection = nn.ModuleDict(
        {
            "fc1": nn.Linear(width, width, bias=False),
            "bn1": nn.BatchNorm1d(width),
            "fc2": nn.Linear(width, 128, bias=False),
            "bn2": nn.BatchNorm1d(128),
        }
    )
    network.projection.bn2.bias.requires_grad = False
    return network


def first_weights(architecture):
    """Per layer with more than one dimension: normal with its deviation, or uniform with its bound."""
    with recorded_draws() as draws:
        network = simclr(architecture)
    matrices = [(name, p) for name, p in network.named_parameters() if p.dim() > 1]
    return {name: draws[id(p)] for name, p in matrices}


def decayed(architecture):
    """The parameters that the reference decays, by its rules on names."""
    contrastive = [n for n, p in simclr(architecture).named_parameters() if p.requires_grad]
    supervised = [n for n, _ in encoder(architecture, 10).named_parameters()]
    return {
        "contrastive": [n for n in contrastive if not any(part in n for part in ("bn", "bias"))],
        "supervised": [n for n in supervised if "bn" not in n],
    }


def logits(architecture):
    network = encoder(architecture, 10)
    fill_network(network)
    side = 64 if architecture.endswith("-224") else 16
    images = fill((4, 3, side, side), 1000, 0.0, 1.0)
    with torch.no_grad():
        return {
            "evaluate": network.eval()(images).flatten().tolist(),
            "train": network.train()(images).flatten().tolist(),
        }


ARCHITECTURES = ["resnet18", "resnet34", "resnet50", "resnet18-224", "resnet50-224"]
vectors = {
    "first_weights": {name: first_weights(name) for name in ARCHITECTURES},
    "decayed": {name: decayed(name) for name in ["resnet18", "resnet34", "resnet50"]},
    "logits": {name: logits(name) for name in ARCHITECTURES},
}
path = pathlib.Path(__file__).with_name("torchvision.json")
path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")) + "\n")
