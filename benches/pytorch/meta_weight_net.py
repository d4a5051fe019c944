"""How long a step of Meta-Weight-Net takes in PyTorch with the `higher` package.

    python3 benches/pytorch/meta_weight_net.py [steps] [f32|bf16] [threads] [batch]     (needs torch, torchvision, higher)

ResNet-18 with the CIFAR stem, 10 classes, images of 32x32: a differentiable copy of the network, one step of SGD on
the weighted loss in it, the meta loss of the copy run backwards through that step, then a third forward pass for the
classifier's own step. Prints the seconds of every step but the first one, a line each, as
`src/learn/benches/meta_weight_net_step.rs` does for ours.
"""

import contextlib
import sys
import time

import higher
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import resnet18

arguments = sys.argv[1:] + ["5", "f32", "2", "100"][len(sys.argv) - 1 :]
STEPS, PRECISION, THREADS, BATCH = int(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
CLASSES = 10

torch.set_num_threads(THREADS)


def cifar_resnet18():
    network = resnet18(num_classes=CLASSES)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()
    return network


def precision():
    if PRECISION == "bf16":
        return torch.autocast("cpu", dtype=torch.bfloat16)
    return contextlib.nullcontext()


def labelled():
    return torch.rand(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))


def sample_losses(network, images, labels):
    with precision():
        logits = network(images)
    return F.cross_entropy(logits.float(), labels, reduction="none")


def main():
    network = cifar_resnet18().train()
    weighting = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
    groups = [
        {"params": [p for n, p in network.named_parameters() if "bn" not in n], "weight_decay": 1e-4},
        {"params": [p for n, p in network.named_parameters() if "bn" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    meta_optimizer = torch.optim.SGD(
        weighting.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4
    )

    def step(images, labels, meta_images, meta_labels):
        inner = torch.optim.SGD(network.parameters(), lr=0.1)
        with higher.innerloop_ctx(network, inner) as (copy, differentiable):
            losses = sample_losses(copy, images, labels)
            weights = weighting(losses.detach()[:, None])[:, 0]
            differentiable.step((weights * losses).mean())
            meta_loss = sample_losses(copy, meta_images, meta_labels).mean()
            meta_optimizer.zero_grad()
            meta_loss.backward()
            meta_optimizer.step()
        losses = sample_losses(network, images, labels)
        with torch.no_grad():
            weights = weighting(losses[:, None])[:, 0]
        optimizer.zero_grad()
        (weights * losses).mean().backward()
        optimizer.step()

    for index in range(STEPS + 1):
        batch, meta_batch = labelled(), labelled()
        started = time.perf_counter()
        step(*batch, *meta_batch)
        if index > 0:
            print(f"{time.perf_counter() - started:.4f}", flush=True)


main()
