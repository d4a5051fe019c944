"""What the scripts here share: numbers by a formula, and the networks in PyTorch."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def fill(shape, stream, low=-1.0, high=1.0):
    """Uniform-looking numbers: the fraction of a large multiple of a sine, per stream and position."""
    count = math.prod(shape)
    phase = 12.9898 * (np.arange(count, dtype=np.float64) + 1) + 78.233 * (stream + 1)
    fraction = np.sin(phase) * 43758.5453
    fraction = fraction - np.floor(fraction)
    return torch.tensor((low + (high - low) * fraction).astype(np.float32)).reshape(shape)


class Basic(nn.Module):
    expansion = 1

    def __init__(self, inputs, base, stride, option_a):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, base, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.conv2 = nn.Conv2d(base, base, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(base)
        self.stride, self.pad = stride, base - inputs
        self.option_a = option_a
        if not option_a and (stride != 1 or inputs != base):
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, base, 1, stride, bias=False), nn.BatchNorm2d(base)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.option_a and (self.stride != 1 or self.pad):
            before = self.pad // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, before, self.pad - before))
        return F.relu(y + x)


class PreActivated(nn.Module):
    """DivideMix's names, and its shortcut: from the first ReLU on, also where it is the identity."""

    expansion = 1

    def __init__(self, inputs, base, stride, _option_a):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, base, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(base)
        self.conv2 = nn.Conv2d(base, base, 3, 1, 1, bias=False)
        if stride != 1 or inputs != base:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, base, 1, stride, bias=False))

    def forward(self, x):
        active = F.relu(self.bn1(x))
        skipped = self.shortcut(active) if hasattr(self, "shortcut") else active
        return self.conv2(F.relu(self.bn2(self.conv1(active)))) + skipped


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, inputs, base, stride, _option_a):
        super().__init__()
        outputs = 4 * base
        self.conv1 = nn.Conv2d(inputs, base, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(base)
        self.conv2 = nn.Conv2d(base, base, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(base)
        self.conv3 = nn.Conv2d(base, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        return F.relu(y + x)


class ResNet(nn.Module):
    """torchvision's names, but for pre-activated blocks; a 3x3 stem without max-pool, or torchvision's own."""

    def __init__(self, block, stages, stem_stride=1, option_a=False, own_stem=False):
        super().__init__()
        width, channels, classes = stages[0][0], 3, 10
        if own_stem:
            self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        else:
            self.conv1 = nn.Conv2d(channels, width, 3, stem_stride, 1, bias=False)
        self.own_stem = own_stem
        self.bn1 = nn.BatchNorm2d(width)
        for stage, (base, count) in enumerate(stages):
            blocks = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(width, base, stride, option_a))
                width = base * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.stages = len(stages)
        self.fc = nn.Linear(width, classes)

    def features(self, x):
        # Channels innermost from here on, as the Rust code has them.
        x = self.conv1(x).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.bn1(x))
        if self.own_stem:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))

    def forward(self, x):
        return self.fc(self.features(x))


ARCHITECTURES = {
    "resnet8-fast": lambda: ResNet(Basic, [(16, 1), (32, 1), (64, 1)], 2, True),
    "resnet8": lambda: ResNet(Basic, [(16, 1), (32, 1), (64, 1)], 1, True),
    "resnet18": lambda: ResNet(Basic, [(64, 2), (128, 2), (256, 2), (512, 2)]),
    "preact-resnet18": lambda: ResNet(PreActivated, [(64, 2), (128, 2), (256, 2), (512, 2)]),
    "resnet32": lambda: ResNet(Basic, [(16, 5), (32, 5), (64, 5)], 1, True),
    "resnet34": lambda: ResNet(Basic, [(64, 3), (128, 4), (256, 6), (512, 3)]),
    "resnet50": lambda: ResNet(Bottleneck, [(64, 3), (128, 4), (256, 6), (512, 3)]),
    "resnet18-224": lambda: ResNet(Basic, [(64, 2), (128, 2), (256, 2), (512, 2)], own_stem=True),
    "resnet50-224": lambda: ResNet(
        Bottleneck, [(64, 3), (128, 4), (256, 6), (512, 3)], own_stem=True
    ),
}


def fill_network(network, first_stream=0):
    """Sets every tensor of a state dict, in its order; the first one by this stream."""
    with torch.no_grad():
        for stream, (name, tensor) in enumerate(network.state_dict().items(), first_stream):
            if name.endswith("num_batches_tracked"):
                continue
            if name in ("cls_token", "pos_embed"):
                tensor.copy_(fill(tensor.shape, stream))
            elif tensor.dim() > 1:
                bound = math.sqrt(6.0 / math.prod(tensor.shape[1:]))
                tensor.copy_(fill(tensor.shape, stream, -bound, bound))
            elif name.endswith(("running_var", "weight")):
                tensor.copy_(fill(tensor.shape, stream, 0.5, 1.5))
            else:
                tensor.copy_(fill(tensor.shape, stream, -0.2, 0.2))
