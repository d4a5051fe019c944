"""Training in PyTorch 2.11: a trajectory, a mean of networks, schedules, the projection head, a linear probe, nearest neighbours.

    python3 tests/reference/learn/make_training.py     (needs torch; writes training.json beside itself)

Inputs are made by the formula `fill`, on both sides, so that the file holds results alone.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
from networks import ARCHITECTURES, fill, fill_network
from torch import nn
from torch.optim.swa_utils import AveragedModel

torch.set_num_threads(1)


def trajectory():
    """The losses of twenty steps of resnet8, SGD momentum 0.9, decay not on `bn`.

    In float64: so the file holds the trajectory itself, and not one of those that float32 rounds it to.
    """
    network = ARCHITECTURES["resnet8"]()
    fill_network(network)
    network.double().train()
    named = list(network.named_parameters())
    rule = torch.optim.SGD(
        [
            {"params": [p for n, p in named if "bn" not in n], "weight_decay": 1e-3},
            {"params": [p for n, p in named if "bn" in n], "weight_decay": 0.0},
        ],
        lr=0.005,
        momentum=0.9,
    )
    losses = []
    for step in range(20):
        images = fill((64, 3, 16, 16), 2000 + step % 4, 0.0, 1.0).double()
        labels = (torch.arange(64) * 3 + step % 4) % 10
        loss = F.cross_entropy(network(images), labels)
        rule.zero_grad()
        loss.backward()
        rule.step()
        losses.append(loss.item())
    return losses


def mean_of_networks():
    """The mean of three: a trained tensor and running statistics, by name."""
    networks = [ARCHITECTURES["resnet8"]() for _ in range(3)]
    mean = AveragedModel(networks[0], use_buffers=True)
    for network, offset in zip(networks, (0, 500, 900)):
        fill_network(network, offset)
        mean.update_parameters(network)
    state = mean.module.state_dict()
    return {name: state[name].flatten().tolist() for name in ("fc.weight", "bn1.running_var")}


def rates(make, steps):
    """The learning rate of every step of one of PyTorch's schedulers, from a peak of 1."""
    rule = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make(rule)
    found = []
    for _ in range(steps):
        found.append(rule.param_groups[0]["lr"])
        rule.step()
        scheduler.step()
    return found


def warmup_cosine(warmup, steps):
    """The reference's own: it rises by 1/(W+1) a step to the peak, then half a cosine."""
    rising = int(warmup * steps)
    found = []
    for step in range(steps):
        if step < rising:
            found.append((step + 1) / (rising + 1))
        else:
            found.append(0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising))))
    return found


def schedules():
    schedulers = torch.optim.lr_scheduler
    return [
        {"schedule": "warmup-cosine", "warmup": 0.01, "rates": warmup_cosine(0.01, 250)},
        {"schedule": "warmup-cosine", "warmup": 0.3, "rates": warmup_cosine(0.3, 21)},
        # Without warm-up PyTorch has it.
        {
            "schedule": "warmup-cosine",
            "warmup": 0.0,
            "rates": rates(lambda rule: schedulers.CosineAnnealingLR(rule, T_max=40), 40),
        },
        {
            "schedule": "linear",
            "rates": rates(lambda rule: schedulers.LinearLR(rule, 1.0, 0.0, total_iters=30), 30),
        },
        {"schedule": "constant", "rates": rates(lambda rule: schedulers.ConstantLR(rule, 1.0), 5)},
        {
            "schedule": "step",
            "every": 7,
            "factor": 0.5,
            "rates": rates(lambda rule: schedulers.StepLR(rule, 7, 0.5), 40),
        },
    ]


class Projector(nn.Module):
    """An encoder with SimCLR's projection head, under the names of the reference's checkpoints."""

    def __init__(self, encoder, features, size):
        super().__init__()
        self.encoder = encoder
        head = {
            "fc1": nn.Linear(features, features, bias=False),
            "bn1": nn.BatchNorm1d(features),
            "fc2": nn.Linear(features, size, bias=False),
            "bn2": nn.BatchNorm1d(size),
        }
        self.projection = nn.ModuleDict(head)
        # Fixed: it stays zero in training, but a network filled by formula has another one.
        self.projection.bn2.bias.requires_grad = False

    def forward(self, images):
        head = self.projection
        hidden = F.relu(head.bn1(head.fc1(self.encoder.features(images))))
        return head.bn2(head.fc2(hidden))


def nt_xent(views, temperature):
    unit = F.normalize(views, dim=1)
    logits = unit @ unit.T / temperature
    logits = logits.masked_fill(torch.eye(len(views), dtype=torch.bool), -math.inf)
    other = torch.arange(len(views)).roll(len(views) // 2)
    return F.cross_entropy(logits, other)


def projector():
    encoder = ARCHITECTURES["resnet8-fast"]()
    del encoder.fc
    network = Projector(encoder, 64, 12)
    fill_network(network)
    images = fill((8, 3, 16, 16), 1000, 0.0, 1.0)
    with torch.no_grad():
        network.eval()
        evaluated = network(images)
    network.train()
    trained = network(images)
    loss = nt_xent(trained, 0.5)
    loss.backward()
    state = network.state_dict()
    name = lambda name: name.removeprefix("encoder.")
    return {
        "names": [name(n) for n in state],
        "shapes": [list(tensor.shape) for tensor in state.values()],
        "trained": [name(n) for n, p in network.named_parameters() if p.requires_grad],
        "evaluate": evaluated.flatten().tolist(),
        "train": trained.flatten().tolist(),
        "running_var": state["projection.bn2.running_var"].tolist(),
        "loss": loss.item(),
        "gradient_norms": [
            p.grad.norm().item() for p in network.parameters() if p.requires_grad
        ],
    }


def linear_probe():
    """A layer from zero on fixed features: SGD momentum 0.9, decay on weight and bias, linear to 0."""
    features = fill((24, 6), 60, 0.0, 2.0).double()
    labels = torch.arange(24) % 3
    layer = nn.Linear(6, 3).double()
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    rule = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    scheduler = torch.optim.lr_scheduler.LinearLR(rule, 1.0, 0.0, total_iters=30)
    losses = []
    for step in range(30):
        rows = torch.arange(8) + 8 * (step % 3)
        loss = F.cross_entropy(layer(features[rows]), labels[rows])
        rule.zero_grad()
        loss.backward()
        rule.step()
        scheduler.step()
        losses.append(loss.item())
    return {
        "losses": losses,
        "weight": layer.weight.flatten().tolist(),
        "bias": layer.bias.tolist(),
    }


def nearest_neighbours():
    """The votes of the k nearest by cosine, each worth exp(cosine / temperature), as shares of a row."""
    bank = F.normalize(fill((40, 5), 70).double(), dim=1)
    labels = (torch.arange(40) * 7) % 4
    queries = F.normalize(fill((6, 5), 71).double(), dim=1)
    made = []
    for k, temperature in [(1, 0.1), (10, 0.1), (40, 0.5)]:
        cosines = queries @ bank.T
        nearest = cosines.argsort(dim=1, descending=True)[:, :k]
        votes = torch.zeros(6, 4, dtype=torch.float64)
        for row in range(6):
            for neighbour in nearest[row]:
                votes[row, labels[neighbour]] += math.exp(cosines[row, neighbour] / temperature)
        shares = votes / votes.sum(1, keepdim=True)
        made.append({"k": k, "temperature": temperature, "shares": shares.flatten().tolist()})
    return made


vectors = {
    "trajectory": trajectory(),
    "mean_of_networks": mean_of_networks(),
    "schedules": schedules(),
    "projector": projector(),
    "linear_probe": linear_probe(),
    "nearest_neighbours": nearest_neighbours(),
}
path = pathlib.Path(__file__).with_name("training.json")
path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")) + "\n")
