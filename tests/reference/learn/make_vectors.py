"""Numbers that the Rust code must reproduce, computed by PyTorch 2.11.

    python3 tests/reference/learn/make_vectors.py     (needs torch; writes vectors.json beside itself)

Inputs are made by the formula `fill`, on both sides, so that the file holds results alone.
"""

import json
import math
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

torch.set_num_threads(1)


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
    """torchvision's names; a 3x3 stem without max-pool, or torchvision's own."""

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
    "resnet32": lambda: ResNet(Basic, [(16, 5), (32, 5), (64, 5)], 1, True),
    "resnet50": lambda: ResNet(Bottleneck, [(64, 3), (128, 4), (256, 6), (512, 3)]),
    "resnet18-224": lambda: ResNet(Basic, [(64, 2), (128, 2), (256, 2), (512, 2)], own_stem=True),
    "resnet50-224": lambda: ResNet(
        Bottleneck, [(64, 3), (128, 4), (256, 6), (512, 3)], own_stem=True
    ),
}


def fill_network(network):
    """Sets every tensor of a state dict, in its order."""
    with torch.no_grad():
        for stream, (name, tensor) in enumerate(network.state_dict().items()):
            if name.endswith("num_batches_tracked"):
                continue
            if tensor.dim() > 1:
                bound = math.sqrt(6.0 / math.prod(tensor.shape[1:]))
                tensor.copy_(fill(tensor.shape, stream, -bound, bound))
            elif name.endswith(("running_var", "weight")):
                tensor.copy_(fill(tensor.shape, stream, 0.5, 1.5))
            else:
                tensor.copy_(fill(tensor.shape, stream, -0.2, 0.2))


def networks():
    made = {}
    for name, make in ARCHITECTURES.items():
        network = make()
        fill_network(network)
        side = 64 if network.own_stem else 16
        images = fill((4, 3, side, side), 1000, 0.0, 1.0)
        with torch.no_grad():
            network.eval()
            evaluated = network(images)
            network.train()
            trained = network(images)
        state = network.state_dict()
        made[name] = {
            "names": list(state),
            "shapes": [list(tensor.shape) for tensor in state.values()],
            "logits_evaluate": evaluated.flatten().tolist(),
            "logits_train": trained.flatten().tolist(),
            "running_mean": state["bn1.running_mean"][:4].tolist(),
            "batches": int(state["bn1.num_batches_tracked"]),
        }
    return made


def losses():
    labels = torch.tensor([0, 4, 2, 2])
    made = {}
    kinds = {
        "cross-entropy": lambda p: -torch.log(p),
        "gce-0.5": lambda p: (1 - p**0.5) / 0.5,
        "gce-0.66": lambda p: (1 - p**0.66) / 0.66,
        "mae": lambda p: 2 * (1 - p),
    }
    for name, loss_of in kinds.items():
        logits = fill((4, 5), 7, -3, 3).double().requires_grad_()
        probability = torch.softmax(logits, 1).gather(1, labels[:, None])[:, 0]
        loss = loss_of(probability).mean()
        loss.backward()
        made[name] = {"loss": loss.item(), "gradient": logits.grad.flatten().tolist()}
    return made


def nt_xent():
    views = fill((8, 4), 11).double().requires_grad_()
    unit = F.normalize(views, dim=1)
    logits = unit @ unit.T / 0.5
    logits = logits.masked_fill(torch.eye(8, dtype=torch.bool), -math.inf)
    labels = torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    accuracy = (logits.argmax(1) == labels).double().mean().item()
    return {"loss": loss.item(), "accuracy": accuracy, "gradient": views.grad.flatten().tolist()}


def optimizers():
    """Five steps on a decayed matrix and an undecayed vector, with given gradients."""

    def lars(parameters, velocity, lr):
        for index, parameter in enumerate(parameters):
            gradient = parameter.grad
            if index == 0:
                gradient = gradient + 1e-2 * parameter
                if parameter.norm() > 0 and gradient.norm() > 0:
                    gradient = gradient * 0.001 * parameter.norm() / gradient.norm()
            velocity[index] = 0.9 * velocity[index] + gradient
            parameter -= lr * velocity[index]

    made = {}
    for name in ["sgd", "lars", "adam"]:
        parameters = [fill((2, 3), 20).requires_grad_(), fill((3,), 21).requires_grad_()]
        groups = [
            {"params": [parameters[0]], "weight_decay": 1e-2},
            {"params": [parameters[1]], "weight_decay": 0.0},
        ]
        torch_rule = {
            "sgd": lambda: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
            "adam": lambda: torch.optim.Adam(groups, lr=0.1),
            "lars": lambda: None,
        }[name]()
        velocity = [torch.zeros(2, 3), torch.zeros(3)]
        for step in range(5):
            for index, parameter in enumerate(parameters):
                parameter.grad = fill(parameter.shape, 30 + 2 * step + index)
            if torch_rule is None:
                with torch.no_grad():
                    lars(parameters, velocity, 0.1)
            else:
                torch_rule.step()
        made[name] = [parameter.flatten().tolist() for parameter in parameters]
    return made


def resize():
    """Lines resampled by torch's antialiased bicubic (a = -0.5)."""
    made = []
    for length, outputs in [(7, 28), (28, 28), (20, 28), (64, 24), (3, 9), (1, 4)]:
        line = fill((1, 1, 1, length), 40, 0, 255)
        out = F.interpolate(line, size=(1, outputs), mode="bicubic", antialias=True)
        made.append({"length": length, "outputs": outputs, "line": out.flatten().tolist()})
    return made


def trajectory():
    """The losses of twenty steps of resnet8, SGD momentum 0.9, decay not on `bn`."""
    network = ARCHITECTURES["resnet8"]()
    fill_network(network)
    network.train()
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
        images = fill((16, 3, 16, 16), 2000 + step % 4, 0.0, 1.0)
        labels = (torch.arange(16) * 3 + step % 4) % 10
        loss = F.cross_entropy(network(images), labels)
        rule.zero_grad()
        loss.backward()
        rule.step()
        losses.append(loss.item())
    return losses


vectors = {
    "networks": networks(),
    "losses": losses(),
    "nt_xent": nt_xent(),
    "optimizers": optimizers(),
    "resize": resize(),
    "trajectory": trajectory(),
}
path = pathlib.Path(__file__).with_name("vectors.json")
path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")) + "\n")
