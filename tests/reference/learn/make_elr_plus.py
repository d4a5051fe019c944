"""ELR+ in PyTorch 2.11: twenty steps of two networks and their averages.

    python3 tests/reference/learn/make_elr_plus.py     (needs torch; writes elr_plus.json beside itself)

By the formulae of src/learn/methods/elr_plus.rs, which says what is unlike the authors' code. Inputs are made by the formula
`fill`, on both sides, so that the file holds results alone. In float64, as in make_methods.py.
"""

import copy
import json
import math
import pathlib

import torch
import torch.nn.functional as F
from networks import ARCHITECTURES, fill, fill_network

torch.set_num_threads(1)

STEPS = 20
BATCH = 64
BATCHES = 4
CLASSES = 10
BETA = 0.7
STRENGTH = 3.0
AVERAGE_MOMENTUM = 0.9
RAMP_UP = 10
STRENGTH_RAMP_UP = 8


def mixing(stream):
    """The share of a row's own image, and the partners."""
    partners = (torch.arange(BATCH) * 7 + 3 + stream) % BATCH
    return fill((BATCHES,), 3100, 0.5, 1.0).double()[stream], partners


def risen(step, ramp_up):
    """The share of its value that a number has risen to."""
    return math.exp(-5 * (1 - min((step + 1) / ramp_up, 1)) ** 2)


def trajectory():
    networks = [ARCHITECTURES["resnet8"]() for _ in range(2)]
    for network, offset in zip(networks, (0, 500)):
        fill_network(network, offset)
        network.double().train()
    averages = copy.deepcopy(networks)
    rules = [torch.optim.SGD(one.parameters(), lr=0.005, momentum=0.9) for one in networks]
    targets = torch.zeros(2, BATCH * BATCHES, CLASSES, dtype=torch.float64)
    losses, gradients = [], []
    for step in range(STEPS):
        stream = step % BATCHES
        images = fill((BATCH, 3, 16, 16), 2000 + stream, 0.0, 1.0).double()
        y = F.one_hot((torch.arange(BATCH) * 3 + stream) % CLASSES, CLASSES).double()
        share, partners = mixing(stream)
        mix = lambda rows: share * rows + (1 - share) * rows[partners]
        with torch.no_grad():
            seen = [torch.softmax(one(images), 1) for one in averages]
        momentum = AVERAGE_MOMENTUM * risen(step, RAMP_UP)
        strength = STRENGTH * risen(step, STRENGTH_RAMP_UP)
        measured = [[], []]
        for number, (network, average, rule) in enumerate(zip(networks, averages, rules)):
            logits = network(mix(images))
            of_batch = slice(BATCH * stream, BATCH * (stream + 1))
            kept = targets[number, of_batch]
            kept.copy_(BETA * kept + (1 - BETA) * seen[1 - number])
            p = torch.softmax(logits, 1).clamp(1e-4, 1 - 1e-4)
            regularizer = torch.log(1 - (mix(kept.clone()) * p).sum(1)).mean()
            cross_entropy = F.cross_entropy(logits, mix(y))
            rule.zero_grad()
            (cross_entropy + strength * regularizer).backward()
            if step == 0:
                # Of the last layer, as in make_methods.py.
                of_layer = network.fc.named_parameters()
                gradients.append({name: q.grad.flatten().tolist() for name, q in of_layer})
            rule.step()
            with torch.no_grad():
                for mean, now in zip(average.parameters(), network.parameters()):
                    mean.mul_(momentum).add_(now, alpha=1 - momentum)
            measured[0].append(cross_entropy.item())
            measured[1].append(regularizer.item())
        losses.append([*measured[0], *measured[1]])
    averages = [average.fc.weight.flatten().tolist() for average in averages]
    targets = targets[:, ::8].flatten(1).tolist()
    return {"losses": losses, "gradients": gradients, "targets": targets, "averages": averages}


def short(value):
    """The numbers with nine digits."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    return float(f"{value:.9g}")


path = pathlib.Path(__file__).with_name("elr_plus.json")
path.write_text(json.dumps(short(trajectory()), indent=None, separators=(",", ":")) + "\n")
