"""Steps of Meta-Weight-Net whose meta-gradient comes from an unrolled graph of a graph, by PyTorch in float64.

    python3 tests/reference/meta_weight_net/make_vectors.py     (needs torch; writes vectors.json beside itself)

The network is the ResNet-8 of the Rust code (option-A shortcuts, stem with stride 1), with batch norm in training
mode. Inputs are made by the formula `fill`, on both sides, so that the file holds results alone. Nothing here knows the
shortcut that the Rust code takes: the look-ahead keeps its graph, and autograd runs through all of it.

Images are taken from the first stream with which no input of a ReLU is nearer to zero than MARGIN: rounding in
float32 could take another branch there, and a gradient would jump.
"""

import itertools
import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

torch.set_num_threads(1)

CLASSES = 10
SAMPLES, META_SAMPLES, SIDE = 12, 8, 8
# All numbers of this many steps, and of the last one; of those between the meta loss and the meta-gradient.
STEPS = 3
HIDDEN = 8
MARGIN = 2e-5

CASES = {
    "plain": {"length": 20},
    "mae": {"meta_loss": "mae"},
    "normalised": {"normalised": True},
    "normalised-adam": {"normalised": True, "adam": True, "meta_lr": 0.05},
    "scheduled": {"scheduled": True, "meta_loss": "mae", "normalised": True},
    "generalized": {"loss": "gce"},
    "bounded": {"loss": "mae", "meta_loss": "mae"},
    "mixed": {"mixes": True},
}


def fill(shape, stream, low=-1.0, high=1.0):
    """Uniform-looking numbers: the fraction of a large multiple of a sine, per stream and position."""
    count = math.prod(shape)
    phase = 12.9898 * (np.arange(count, dtype=np.float64) + 1) + 78.233 * (stream + 1)
    fraction = np.sin(phase) * 43758.5453
    fraction = fraction - np.floor(fraction)
    values = (low + (high - low) * fraction).astype(np.float32)
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def state():
    """The state dict: convolutions, batch norms with their statistics, the classifier."""
    shapes = {}

    def norm(name, channels):
        for part in ["weight", "bias", "running_mean", "running_var"]:
            shapes[f"{name}.{part}"] = (channels,)
        shapes[f"{name}.num_batches_tracked"] = ()

    shapes["conv1.weight"] = (16, 3, 3, 3)
    norm("bn1", 16)
    inputs = 16
    for stage, width in enumerate([16, 32, 64]):
        for layer in [1, 2]:
            shapes[f"layer{stage + 1}.0.conv{layer}.weight"] = (width, inputs, 3, 3)
            norm(f"layer{stage + 1}.0.bn{layer}", width)
            inputs = width
    shapes["fc.weight"], shapes["fc.bias"] = (CLASSES, 64), (CLASSES,)

    tensors = {}
    for stream, (name, shape) in enumerate(shapes.items()):
        if name.endswith("num_batches_tracked"):
            continue
        if len(shape) > 1:
            bound = math.sqrt(6.0 / math.prod(shape[1:]))
            tensors[name] = fill(shape, stream, -bound, bound)
        elif name.endswith(("running_var", "weight")):
            tensors[name] = fill(shape, stream, 0.5, 1.5)
        else:
            tensors[name] = fill(shape, stream, -0.2, 0.2)
    return tensors


nearest = []


def relu(x):
    nearest.append(x.detach().abs().min().item())
    return F.relu(x)


def forward(tensors, images, statistics=None):
    """Logits. `statistics` are moved where they are given."""

    def norm(x, name):
        kept = [statistics and statistics[f"{name}.{part}"] for part in ["running_mean", "running_var"]]
        return F.batch_norm(x, *kept, tensors[f"{name}.weight"], tensors[f"{name}.bias"], True, 0.1, 1e-5)

    x = relu(norm(F.conv2d(images, tensors["conv1.weight"], padding=1), "bn1"))
    for stage in [1, 2, 3]:
        block, stride = f"layer{stage}.0", 1 if stage == 1 else 2
        y = F.conv2d(x, tensors[f"{block}.conv1.weight"], stride=stride, padding=1)
        y = relu(norm(y, f"{block}.bn1"))
        y = norm(F.conv2d(y, tensors[f"{block}.conv2.weight"], padding=1), f"{block}.bn2")
        if stride == 2:
            more = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, more, more))
        x = relu(y + x)
    return F.linear(x.mean((2, 3)), tensors["fc.weight"], tensors["fc.bias"])


def losses(kind, logits, labels):
    probability = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
    return {
        "ce": lambda: -torch.log(probability),
        "gce": lambda: (1 - probability**0.66) / 0.66,
        "mae": lambda: 2 * (1 - probability),
    }[kind]()


def mixing(step):
    """The share of a row's own image, and the partner of each row."""
    share = fill((STEPS,), 3100, 0.5, 1.0)[step]
    return share, (torch.arange(SAMPLES) * 5 + 2 + step) % SAMPLES


def weighting(phi, losses):
    hidden = relu(F.linear(losses[:, None], phi[0], phi[1]))
    return torch.sigmoid(F.linear(hidden, phi[2], phi[3]))[:, 0]


def run(
    loss="ce", meta_loss="ce", normalised=False, scheduled=False, adam=False, meta_lr=0.5, mixes=False, length=STEPS
):
    tensors = state()
    statistics = {name: value for name, value in tensors.items() if "running" in name}
    theta = {n: v.requires_grad_() for n, v in tensors.items() if "running" not in n}
    start = {name: value.detach().clone() for name, value in theta.items()}
    phi = [
        fill(shape, 500 + index).requires_grad_()
        for index, shape in enumerate([(HIDDEN, 1), (HIDDEN,), (1, HIDDEN), (1,)])
    ]
    outer = torch.optim.SGD(
        [
            {"params": [v for n, v in theta.items() if "bn" not in n], "weight_decay": 1e-3},
            {"params": [v for n, v in theta.items() if "bn" in n], "weight_decay": 0.0},
        ],
        lr=0.0,
        momentum=0.9,
    )
    if adam:
        meta = torch.optim.Adam(phi, meta_lr, weight_decay=1e-4)
    else:
        meta = torch.optim.SGD(phi, meta_lr, momentum=0.9, nesterov=True, weight_decay=1e-4)

    def share(weights):
        return weights / (weights.sum() if normalised else len(weights))

    def losses_of_samples(logits, labels, step):
        own = losses(loss, logits, labels)
        if not mixes:
            return own
        share, partners = mixing(step)
        of_partners = losses(loss, logits, labels[partners])
        return share * own + (1 - share) * torch.zeros_like(own).index_add(0, partners, of_partners)

    def mixed(images):
        if not mixes:
            return images
        share, partners = mixing(step)
        return share * images + (1 - share) * images[partners]

    steps = []
    for step in range(length):
        lr = 0.02 * (step % STEPS + 1)
        inner = lr if scheduled else 0.1
        labels = (torch.arange(SAMPLES) * 3 + step) % CLASSES
        meta_labels = (torch.arange(META_SAMPLES) * 7 + step) % CLASSES
        for stream in itertools.count(1000):
            images = fill((SAMPLES, 3, SIDE, SIDE), stream, 0.0, 1.0)
            meta_images = fill((META_SAMPLES, 3, SIDE, SIDE), stream + 1000, 0.0, 1.0)
            nearest.clear()
            sample_losses = losses_of_samples(forward(theta, mixed(images)), labels, step)
            weighted = (share(weighting(phi, sample_losses.detach())) * sample_losses).sum()
            gradients = torch.autograd.grad(weighted, list(theta.values()), create_graph=True)
            ahead = {n: v - inner * g for (n, v), g in zip(theta.items(), gradients)}
            value = losses(meta_loss, forward(ahead, meta_images), meta_labels).mean()
            if min(nearest) > MARGIN:
                break
        meta.zero_grad()
        for parameter, gradient in zip(phi, torch.autograd.grad(value, phi)):
            parameter.grad = gradient
        meta.step()

        sample_losses = losses_of_samples(forward(theta, mixed(images), statistics), labels, step)
        with torch.no_grad():
            weights = weighting(phi, sample_losses)
        outer.zero_grad()
        (share(weights) * sample_losses).sum().backward()
        for group in outer.param_groups:
            group["lr"] = lr
        outer.step()

        moved = [(value.detach() - start[name]).flatten() for name, value in theta.items()]
        steps.append(
            {
                "stream": stream,
                "meta_loss": value.item(),
                "gradient": short(torch.cat([parameter.grad.flatten() for parameter in phi])),
            }
        )
        if STEPS <= step < length - 1:
            continue
        steps[-1].update(
            {
                "phi": short(torch.cat([parameter.detach().flatten() for parameter in phi])),
                "weights": short(weights),
                # The first and the last number of every tensor, less what they began as.
                "theta": short(torch.stack([each[place] for each in moved for place in [0, -1]])),
                "running": short(torch.stack([value[0] for value in statistics.values()])),
            }
        )
    return steps


def short(tensor):
    return [float(f"{value:.9g}") for value in tensor.tolist()]


vectors = {name: run(**case) for name, case in CASES.items()}
path = pathlib.Path(__file__).with_name("vectors.json")
path.write_text(json.dumps(vectors, separators=(",", ":")) + "\n")
