"""Losses and methods of training under label noise in PyTorch 2.11: gradients of the first step, and twenty steps.

    python3 tests/reference/learn/make_methods.py     (needs torch; writes methods.json beside itself)

Written by the formulae of the papers, with PyTorch's own gradients for everything. Inputs are made by the formula `fill`, on both
sides, so that the file holds results alone. In float64: so the file holds the trajectory itself, and not one of those that
float32 rounds it to.
"""

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


def batch(step):
    """Images, another view of them, labels, and which samples they are."""
    stream = step % BATCHES
    images = fill((BATCH, 3, 16, 16), 2000 + stream, 0.0, 1.0).double()
    view = fill((BATCH, 3, 16, 16), 2100 + stream, 0.0, 1.0).double()
    labels = (torch.arange(BATCH) * 3 + stream) % CLASSES
    return images, view, labels, torch.arange(BATCH) + BATCH * stream


def trajectory(loss_of, others=(), begin_epoch=lambda network, epoch: None):
    """Twenty steps of resnet8 by SGD momentum 0.9 without decay, and of what else the loss learns, by plain SGD."""
    network = ARCHITECTURES["resnet8"]()
    fill_network(network)
    network.double().train()
    rules = [torch.optim.SGD(network.parameters(), lr=0.005, momentum=0.9)]
    rules += [torch.optim.SGD([tensor], lr=rate) for tensor, rate in others]
    losses, gradients = [], {}
    for step in range(STEPS):
        if step % BATCHES == 0:
            begin_epoch(network, step // BATCHES)
        logits, loss, measured = loss_of(network, batch(step))
        for rule in rules:
            rule.zero_grad()
        loss.backward()
        if step == 0:
            # Of the last layer, above all ReLUs: below, one that falls on the other side of zero in float32 changes
            # gradients by up to 4e-3, in PyTorch's float32 too.
            layer = network.fc
            gradients = {name: p.grad.flatten().tolist() for name, p in layer.named_parameters()}
        for rule in rules:
            rule.step()
        losses.append(
            [F.cross_entropy(logits, batch(step)[2]).item(), *[value.item() for value in measured]]
        )
    return {"losses": losses, "gradients": gradients}


def elr(beta, strength, mixes=False):
    targets = torch.zeros(BATCH * BATCHES, CLASSES, dtype=torch.float64)

    def loss_of(network, batch):
        images, _, labels, samples = batch
        mixed = mixer(batch) if mixes else lambda rows: rows
        logits = network(mixed(images))
        p = torch.softmax(logits, 1).clamp(1e-4, 1 - 1e-4)
        with torch.no_grad():
            fixed = torch.softmax(network(images), 1).clamp(1e-4, 1 - 1e-4)
        targets[samples] = beta * targets[samples] + (1 - beta) * fixed / fixed.sum(1, keepdim=True)
        regularizer = torch.log(1 - (mixed(targets[samples]) * p).sum(1)).mean()
        loss = F.cross_entropy(logits, mixed(F.one_hot(labels, CLASSES).double()))
        return logits, loss + strength * regularizer, [regularizer]

    made = trajectory(loss_of)
    return {"beta": beta, "lambda": strength, **made, "targets": some(targets)}


def sop(rate_u, rate_v, consistency, balance, mixes=False):
    u = fill((BATCH * BATCHES, 1), 3000, 0.1, 0.8).double().requires_grad_()
    # Mixed, a sample can lack the class of its partner's label: with a large v, q would be near 0 there, and its logarithm not exact in float32.
    largest = 0.1 if mixes else 0.6
    v = fill((BATCH * BATCHES, CLASSES), 3001, 0.05, largest).double().requires_grad_()

    def loss_of(network, batch):
        images, view, labels, samples = batch
        mixed = mixer(batch) if mixes else lambda rows: rows
        if consistency:
            logits, other = network(torch.cat([mixed(images), mixed(view)])).chunk(2)
        else:
            logits = network(mixed(images))
        y = F.one_hot(labels, CLASSES).double()
        excess = (u[samples] ** 2 * y).clamp(0, 1)
        lack = (v[samples] ** 2 * (1 - y)).clamp(0, 1)
        q = (torch.softmax(logits, 1) + mixed(excess - lack.detach())).clamp(min=1e-4)
        q = F.normalize(q, p=1, dim=1).clamp(1e-4, 1)
        corrected = -(mixed(y) * q.log()).sum(1).mean()
        likeliest = F.one_hot(logits.argmax(1), CLASSES).double()
        if mixes:
            with torch.no_grad():
                likeliest = F.one_hot(network(images).argmax(1), CLASSES).double()
        explained = likeliest + excess.detach() - lack
        squared = F.mse_loss(explained, y, reduction="sum") / len(y)
        loss = corrected + squared
        if balance:
            loss = loss - balance * q.mean(0).clamp(1e-4, 1).log().mean()
        if consistency:
            first = torch.softmax(logits, 1).detach()
            second = F.log_softmax(other, 1)
            loss = loss + consistency * F.kl_div(second, first, reduction="batchmean")
        return logits, loss, [corrected, squared]

    made = trajectory(loss_of, [(u, rate_u), (v, rate_v)])
    return {
        "parameters": [rate_u, rate_v, consistency, balance],
        **made,
        "u": some(u),
        "v": some(v),
    }


def forward_correction():
    transition = torch.softmax(fill((CLASSES, CLASSES), 3002, -2.0, 2.0).double(), 1)
    return trajectory(corrected_by(transition))


def corrected_by(transition):
    def loss_of(network, batch):
        images, _, labels, _ = batch
        logits = network(images)
        given = torch.softmax(logits, 1) @ transition.clamp(min=1e-8)
        loss = F.nll_loss(given.log(), labels)
        return logits, loss, [loss]

    return loss_of


def estimated_forward_correction(after):
    """The identity until the epoch `after`, then what the network predicts of the sample at the 97th percentile of each class."""
    transition = torch.eye(CLASSES, dtype=torch.float64)
    surer = 3 * BATCH * BATCHES // 100

    def begin_epoch(network, epoch):
        if epoch != after:
            return
        network.eval()
        with torch.no_grad():
            predictions = [torch.softmax(network(batch(step)[0]), 1) for step in range(BATCHES)]
        network.train()
        predictions = torch.cat(predictions)
        ordered, samples = predictions.sort(dim=0, descending=True)
        gaps = -ordered[surer - 1 : surer + 2].diff(dim=0)
        assert (gaps > 1e-4 * ordered[surer]).all(), "float32 may choose another sample: use other inputs"
        transition.copy_(predictions[samples[surer]])

    made = trajectory(corrected_by(transition), begin_epoch=begin_epoch)
    return {"after": after, **made, "transition": transition.flatten().tolist()}


def generalized_jensen_shannon(share):
    def loss_of(network, batch):
        images, view, labels, _ = batch
        logits = network(torch.cat([images, view])).chunk(2)
        y = F.one_hot(labels, CLASSES).double()
        p = [torch.softmax(one, 1) for one in logits]
        mean = share * y + (1 - share) / 2 * (p[0] + p[1])
        divergence = lambda one: (-torch.special.entr(one) - one * mean.log()).sum(1)
        both = share * divergence(y) + (1 - share) / 2 * (divergence(p[0]) + divergence(p[1]))
        loss = both.mean() / (-(1 - share) * math.log(1 - share))
        return logits[0], loss, [loss]

    return {"share": share, **trajectory(loss_of)}


def mixing(batch):
    """The images, each mixed with that of its partner, the partners, and the share of a row's own."""
    images, _, _, samples = batch
    stream = samples[0].item() // BATCH
    partners = (torch.arange(BATCH) * 7 + 3 + stream) % BATCH
    share = fill((BATCHES,), 3100, 0.5, 1.0).double()[stream]
    return share * images + (1 - share) * images[partners], partners, share


def mixer(batch):
    """What mixes the rows of a batch."""
    _, partners, share = mixing(batch)
    return lambda rows: share * rows + (1 - share) * rows[partners]


def mixup():
    def loss_of(network, batch):
        images, partners, share = mixing(batch)
        logits = network(images)
        y = F.one_hot(batch[2], CLASSES).double()
        loss = F.cross_entropy(logits, share * y + (1 - share) * y[partners])
        return logits, loss, [loss]

    return trajectory(loss_of)


def forward_correction_with_mixup():
    transition = torch.softmax(fill((CLASSES, CLASSES), 3002, -2.0, 2.0).double(), 1)

    def loss_of(network, batch):
        images, partners, share = mixing(batch)
        logits = network(images)
        given = torch.softmax(logits, 1) @ transition
        y = F.one_hot(batch[2], CLASSES).double()
        loss = -((share * y + (1 - share) * y[partners]) * given.log()).sum(1).mean()
        return logits, loss, [loss]

    return trajectory(loss_of)


def truncated(q, after, mixes):
    """The threshold is in the widest gap between two samples in the middle half, so that float32 prunes the same ones."""
    weights = torch.ones(BATCH * BATCHES, dtype=torch.float64)
    threshold = None

    def begin_epoch(network, epoch):
        nonlocal threshold
        if epoch != after:
            return
        network.eval()
        with torch.no_grad():
            for images, _, labels, samples in map(batch, range(BATCHES)):
                weights[samples] = torch.softmax(network(images), 1)[torch.arange(BATCH), labels]
        network.train()
        middle = weights.sort().values[BATCH * BATCHES // 4 : -BATCH * BATCHES // 4]
        widest = middle.diff().argmax()
        assert middle[widest + 1] - middle[widest] > 1e-3, "use other inputs"
        threshold = round(((middle[widest] + middle[widest + 1]) / 2).item(), 5)
        weights.copy_(weights > threshold)

    def loss_of(network, batch):
        images, _, labels, samples = batch
        rows, share = torch.arange(BATCH), 1.0
        if mixes:
            images, rows, share = mixing(batch)
        logits = network(images)

        def losses(rows):
            p = torch.softmax(logits, 1).gather(1, labels[rows, None])[:, 0]
            return weights[samples[rows]] * (1 - p**q) / q

        loss = (share * losses(torch.arange(BATCH)) + (1 - share) * losses(rows)).mean()
        return logits, loss, [weights[samples].mean(), weights[samples].mean()]

    made = trajectory(loss_of, begin_epoch=begin_epoch)
    return {"q": q, "after": after, "threshold": threshold, **made, "weights": some(weights)}


def losses():
    """Losses as their papers define them, with whole distributions, and their gradients by the logits."""
    labels = torch.tensor([0, 4, 2, 2])
    y = F.one_hot(labels, 5).double()

    def cross_entropy(target, p):
        return -(target * p.log()).sum(1)

    def reverse(p):
        return cross_entropy(p, y.clamp(min=1e-4))

    def normalised(p):
        every = torch.eye(5, dtype=torch.float64)
        return cross_entropy(y, p) / sum(cross_entropy(label.expand(4, 5), p) for label in every)

    def divergence(one, other):
        return torch.special.entr(one).neg().sum(1) - (one * other.log()).sum(1)

    def jensen_shannon(p, share):
        mean = share * y + (1 - share) * p
        both = share * divergence(y, mean) + (1 - share) * divergence(p, mean)
        return both / (-(1 - share) * math.log(1 - share))

    def likeliest(p):
        return F.one_hot(p.argmax(1), 5).double()

    kinds = {
        "cross-entropy": lambda p: cross_entropy(y, p),
        "generalized-cross-entropy": lambda p: (1 - (y * p).sum(1) ** 0.66) / 0.66,
        "mae": lambda p: (p - y).abs().sum(1),
        "symmetric-cross-entropy": lambda p: 0.1 * cross_entropy(y, p) + 1.5 * reverse(p),
        "nce-rce": lambda p: 2 * normalised(p) + 0.5 * reverse(p),
        "label-smoothing": lambda p: cross_entropy(0.9 * y + 0.1 / 5, p),
        "soft-bootstrapping": lambda p: cross_entropy(0.95 * y + 0.05 * p, p),
        "hard-bootstrapping": lambda p: cross_entropy(0.8 * y + 0.2 * likeliest(p), p),
        "jensen-shannon": lambda p: jensen_shannon(p, 0.3),
    }
    made = {}
    for name, loss_of in kinds.items():
        logits = fill((4, 5), 7, -3, 3).double().requires_grad_()
        samples = loss_of(torch.softmax(logits, 1))
        samples.mean().backward()
        made[name] = {"losses": samples.tolist(), "gradient": logits.grad.flatten().tolist()}
    return made


def short(value):
    """The numbers with nine digits."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    return float(f"{value:.9g}")


def some(tensor):
    """What is kept of every eighth sample."""
    return tensor[::8].flatten().tolist()


vectors = {
    "losses": losses(),
    "forward_correction": forward_correction(),
    "estimated_forward_correction": estimated_forward_correction(2),
    "generalized_jensen_shannon": generalized_jensen_shannon(0.3),
    "elr": [elr(0.7, 3.0), elr(0.9, 1.0)],
    "elr_with_mixup": [elr(0.7, 3.0, True)],
    "truncated": [truncated(0.7, 2, False), truncated(0.7, 3, True)],
    "mixup": mixup(),
    "forward_correction_with_mixup": forward_correction_with_mixup(),
    "sop": [sop(1.0, 10.0, 0.0, 0.0), sop(1.0, 10.0, 0.9, 0.1)],
    "sop_with_mixup": [sop(1.0, 10.0, 0.0, 0.0, True), sop(1.0, 10.0, 0.9, 0.1, True)],
}
path = pathlib.Path(__file__).with_name("methods.json")
path.write_text(json.dumps(short(vectors), indent=None, separators=(",", ":")) + "\n")
