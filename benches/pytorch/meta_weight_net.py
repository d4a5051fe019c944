"""Meta-Weight-Net in PyTorch with the `higher` package: images a second.

    python3 benches/pytorch/meta_weight_net.py [--way plain] ...     (needs torch, torchvision, higher)

ResNet-18 with the CIFAR stem, 10 classes, images of 32x32: a differentiable copy of the network, one step of SGD on
the weighted loss in it, the meta loss of the copy run backwards through that step, then a third forward pass for the
classifier's own step. Every step has the same images, as ours has in `src/learn/benches/throughput.rs`. `--way no-tf32` has 32-bit floats
on a GPU too, `--way bf16` computes under autocast.
"""

import higher
import torch
import torch.nn.functional as F
from torch import nn

import common


def main():
    settings = common.options(
        __doc__, ("--way", {"default": "plain", "choices": ["plain", "no-tf32", "bf16"]})
    )
    torch.backends.cudnn.allow_tf32 = settings.way != "no-tf32"
    network = common.resnet("resnet18", common.CLASSES).to(settings.device).train()
    weighting = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid()).to(settings.device)
    groups = [
        {"params": [p for n, p in network.named_parameters() if "bn" not in n], "weight_decay": 1e-4},
        {"params": [p for n, p in network.named_parameters() if "bn" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    meta_optimizer = torch.optim.SGD(
        weighting.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4
    )

    def labelled():
        images = torch.rand(settings.batch, 3, 32, 32, device=settings.device)
        return images, torch.randint(common.CLASSES, (settings.batch,), device=settings.device)

    def sample_losses(network, images, labels):
        with common.precision(settings):
            logits = network(images)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    (images, labels), meta = labelled(), labelled()

    def step():
        inner = torch.optim.SGD(network.parameters(), lr=0.1)
        with higher.innerloop_ctx(network, inner) as (copy, differentiable):
            losses = sample_losses(copy, images, labels)
            weights = weighting(losses.detach()[:, None])[:, 0]
            differentiable.step((weights * losses).mean())
            meta_loss = sample_losses(copy, *meta).mean()
            meta_optimizer.zero_grad()
            meta_loss.backward()
            meta_optimizer.step()
        losses = sample_losses(network, images, labels)
        with torch.no_grad():
            weights = weighting(losses[:, None])[:, 0]
        optimizer.zero_grad()
        (weights * losses).mean().backward()
        optimizer.step()

    common.serve(step, settings.batch, settings)


main()
