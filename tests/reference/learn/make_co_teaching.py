"""Co-teaching in PyTorch 2.11: twenty steps of two networks, by the formulae of the paper.

    python3 tests/reference/learn/make_co_teaching.py     (needs torch; writes co_teaching.json beside itself)

Inputs are made by the formula `fill`, on both sides, so that the file holds results alone. In float64, as in make_methods.py. No
two losses at the end of a choice are nearer than `GAP`, so that float32 chooses the same samples.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from networks import ARCHITECTURES, fill, fill_network

torch.set_num_threads(1)

STEPS = 20
BATCH = 64
BATCHES = 4
CLASSES = 10
GAP = 1e-3


def made(offset):
    network = ARCHITECTURES["resnet8"]()
    fill_network(network, offset)
    return network.double().train()


def smallest(losses, count):
    """The samples with the smallest losses."""
    order = torch.argsort(losses.detach(), stable=True)
    if count < len(losses):
        gap = (losses[order[count]] - losses[order[count - 1]]).item()
        assert gap > GAP, f"two losses are {gap} apart: use other inputs"
    return order[:count]


def descended(network, images, labels, losses, chosen, step):
    """The losses of the samples that were chosen; with MixUp, mixed with each other: each with the one whose number is next in the random order of all."""
    if step is None:
        return losses[chosen]
    stream = step % BATCHES
    numbers = (torch.arange(BATCH) * 7 + 3 + stream) % BATCH
    partners = torch.tensor(sorted(range(len(chosen)), key=lambda row: numbers[chosen[row]]))
    share = fill((BATCHES,), 3100, 0.5, 1.0).double()[stream]
    images, y = images[chosen], F.one_hot(labels[chosen], CLASSES).double()
    mixed = lambda rows: share * rows + (1 - share) * rows[partners]
    return F.cross_entropy(network(mixed(images)), mixed(y), reduction="none")


def trajectory(forget_rate, forget_epochs, first_images=4800, mixes=False):
    networks = [made(0), made(500)]
    rules = [torch.optim.SGD(one.parameters(), lr=0.005, momentum=0.9) for one in networks]
    losses_by_step, gradients = [], []
    for step in range(STEPS):
        stream, epoch = step % BATCHES, step // BATCHES + 1
        images = fill((BATCH, 3, 16, 16), first_images + stream, 0.0, 1.0).double()
        labels = (torch.arange(BATCH) * 3 + stream) % CLASSES
        remember = 1 - min(epoch / forget_epochs * forget_rate, forget_rate)
        # The smallest number of samples that is at least this share; not one more for a rounded product.
        count = -int(-(remember * BATCH - 1e-9) // 1)
        losses = [F.cross_entropy(one(images), labels, reduction="none") for one in networks]
        chosen = [smallest(one, count) for one in losses]
        for network, rule, own, others in zip(networks, rules, losses, reversed(chosen)):
            rule.zero_grad()
            mixed = step if mixes else None
            descended(network, images, labels, own, others, mixed).mean().backward()
        if step == 0:
            gradients = [
                {name: p.grad.flatten().tolist() for name, p in one.fc.named_parameters()}
                for one in networks
            ]
        for rule in rules:
            rule.step()
        means = [one.mean().item() for one in losses]
        losses_by_step.append([*means, count])
    return {
        "first-images": first_images,
        "mixes": mixes,
        "forget-rate": forget_rate,
        "forget-epochs": forget_epochs,
        "losses": losses_by_step,
        "gradients": gradients,
    }


def short(value):
    """The numbers with nine digits."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    if isinstance(value, bool):
        return value
    return float(f"{value:.9g}")


vectors = [trajectory(0.5, 3), trajectory(0.2, 1), trajectory(0.5, 3, 4800, True)]
path = pathlib.Path(__file__).with_name("co_teaching.json")
path.write_text(json.dumps(short(vectors), indent=None, separators=(",", ":")) + "\n")
