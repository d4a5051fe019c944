"""Pre-training by SimCLR on images of 3x32x32, end to end, as it is usually done: views a second.

    python3 benches/pytorch/simclr.py [--architecture resnet18] ...     (needs torch, torchvision, pillow)

f32, row-major, eager; a data loader gives two views of every PIL image by torchvision's transforms; LARS around SGD.
"""

import torch
import torch.nn.functional as F
from torch import nn

import common


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


def main():
    settings = common.options(__doc__, ("--architecture", {"default": "resnet18"}))
    network = Projector(settings.architecture).to(settings.device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9)
    adapted = [parameter for parameter in network.parameters() if parameter.dim() > 1]
    transform = common.simclr_views()
    source = common.batches(
        common.images(), lambda image: (transform(image), transform(image)), settings
    )

    def step():
        (first, second), _ = next(source)
        views = torch.cat([first, second]).to(settings.device, non_blocking=True)
        loss = contrastive_loss(network(views))
        optimizer.zero_grad()
        loss.backward()
        rescale(adapted)
        optimizer.step()

    common.serve(step, 2 * settings.batch, settings)


if __name__ == "__main__":
    main()
