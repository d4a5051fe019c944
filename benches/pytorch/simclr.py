"""Pre-training by SimCLR on images of 3x32x32, end to end: views a second.

    python3 benches/pytorch/simclr.py [--architecture resnet18] [--way plain] ...     (needs torch, torchvision, pillow, kornia)

`--way plain` is how it is usually done: f32, row-major, eager; a data loader gives two views of every PIL image by
torchvision's transforms; LARS around SGD. The others have the images in memory as one tensor, the views from kornia on the
device, and LARS over all weights at once: `channels-last` (with the fused optimizer), `bf16` (under autocast), `compiled`
and `compiled-bf16` (those through torch.compile).
"""

import torch
import torch.nn.functional as F
from torch import nn

import common

WAYS = ["plain", "channels-last", "bf16", "compiled", "compiled-bf16"]


class Projector(nn.Module):
    """Encoder and projection head."""

    def __init__(self, architecture):
        super().__init__()
        self.convnet = common.resnet(architecture, 1)
        features = self.convnet.fc.in_features
        self.convnet.fc = nn.Identity()
        self.projection = nn.Sequential(
            nn.Linear(features, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(),
            nn.Linear(features, 128, bias=False),
            nn.BatchNorm1d(128),
        )

    def forward(self, views):
        return self.projection(self.convnet(views))


def contrastive_loss(projections, temperature=0.5):
    unit = F.normalize(projections)
    logits = unit @ unit.T / temperature
    rows = len(unit)
    logits.fill_diagonal_(float("-inf"))
    return F.cross_entropy(logits, torch.arange(rows, device=unit.device).roll(rows // 2))


@torch.no_grad()
def rescale(adapted, trust=0.001, decay=1e-6):
    """LARS: gradients to the length of their weights."""
    for parameter in adapted:
        parameter.grad.add_(parameter, alpha=decay)
        lengths = parameter.norm(), parameter.grad.norm()
        if all(length > 0 for length in lengths):
            parameter.grad.mul_(trust * lengths[0] / lengths[1])


@torch.no_grad()
def rescale_at_once(adapted, trust=0.001, decay=1e-6):
    """The same without waiting for the device."""
    gradients = [parameter.grad for parameter in adapted]
    torch._foreach_add_(gradients, adapted, alpha=decay)
    weights = torch.stack(torch._foreach_norm(adapted))
    lengths = torch.stack(torch._foreach_norm(gradients))
    factors = torch.where((weights > 0) & (lengths > 0), trust * weights / lengths, 1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


def from_memory(settings):
    """Two views of each image of a batch, made on the device: [2 batch, 3, 32, 32]."""
    pixels, views = common.pixels(settings), common.kornia_views()
    for chosen in common.shuffled(settings.batch, settings.device):
        batch = pixels[chosen].float().div_(255)
        with torch.no_grad():
            both = views(torch.cat([batch, batch])).clamp_(0, 1)
        yield both.contiguous(memory_format=torch.channels_last)


def from_loader(settings):
    """The same from a loader of PIL images."""
    transform = common.simclr_views()
    pairs = common.batches(common.images(), lambda image: (transform(image), transform(image)), settings)
    for views, _ in pairs:
        yield torch.cat(views).to(settings.device, non_blocking=True)


def main():
    settings = common.options(
        __doc__,
        ("--architecture", {"default": "resnet18"}),
        ("--way", {"default": "plain", "choices": WAYS}),
    )
    plain = settings.way == "plain"
    network = Projector(settings.architecture).to(settings.device).train()
    if not plain:
        network = network.to(memory_format=torch.channels_last)
    fused = None if plain else True
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9, fused=fused)
    adapted = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    forward = torch.compile(network) if settings.way.startswith("compiled") else network
    adapt = rescale if plain else rescale_at_once
    source = from_loader(settings) if plain else from_memory(settings)

    def step():
        views = next(source)
        with common.precision(settings):
            projections = forward(views)
        loss = contrastive_loss(projections.float())
        optimizer.zero_grad()
        loss.backward()
        adapt(adapted)
        optimizer.step()

    common.serve(step, 2 * settings.batch, settings, loaded=plain)


if __name__ == "__main__":
    main()
