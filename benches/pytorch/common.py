"""What the benches in PyTorch share: options, and laps on demand.

A bench prints `ready` when it is warm; then every line on standard input starts a lap of about `--seconds`, whose
outcome is a line {"items": images or views, "seconds": ...}. `src/learn/benches/throughput.rs` speaks the same way, so that
`benches/run.py` can let two programs take turns.
"""

import argparse
import contextlib
import itertools
import json
import math
import sys
import time

import torch

IMAGES = 4096
CLASSES = 10


def options(description, *more):
    parser = argparse.ArgumentParser(description=description)
    for names, settings in more:
        parser.add_argument(names, **settings)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a lap")
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    torch.manual_seed(1)
    return found


def serve(step, items, settings):
    """Laps of `step`, a function of nothing that works on `items` images or views."""

    def lap(count):
        started = time.perf_counter()
        for _ in range(count):
            step()
        if settings.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    lap(1)
    count = max(1, math.ceil(settings.seconds / lap(1)))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({"items": count * items, "seconds": lap(count)}), flush=True)


def precision(settings):
    """The context of a forward pass: autocast in the ways that end in bf16."""
    if settings.way.endswith("bf16"):
        return torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def pixels(settings):
    """Images of noise as one tensor on the device, u8 [IMAGES, 3, 32, 32]."""
    return torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=settings.device)


def shuffled(settings):
    """The indices of full batches, epoch after epoch, without end."""
    while True:
        for chosen in torch.randperm(IMAGES, device=settings.device).split(settings.batch):
            if len(chosen) == settings.batch:
                yield chosen


def images():
    """Images of noise as PIL has them, and labels."""
    from PIL import Image

    pixels = torch.randint(256, (IMAGES, 32, 32, 3), dtype=torch.uint8).numpy()
    return [(Image.fromarray(image), index % CLASSES) for index, image in enumerate(pixels)]


class Transformed(torch.utils.data.Dataset):
    """Images through a transform, as torchvision's data sets give them."""

    def __init__(self, pairs, transform):
        self.pairs, self.transform = pairs, transform

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        image, label = self.pairs[index]
        return self.transform(image), label


def batches(pairs, transform, settings):
    """Batches without end, from a loader with as many workers as threads."""
    workers = settings.threads
    loader = torch.utils.data.DataLoader(
        Transformed(pairs, transform),
        settings.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=settings.device != "cpu",
    )
    return itertools.chain.from_iterable(itertools.repeat(loader))


def resnet(name, classes):
    """torchvision's ResNet with the CIFAR stem."""
    import torchvision

    network = getattr(torchvision.models, name)(num_classes=classes)
    network.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = torch.nn.Identity()
    return network


def simclr_views():
    """The augmentation of the SimCLR checkpoints: no blur, no normalisation."""
    from torchvision import transforms

    jitter = transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(32, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([jitter], p=0.8),
            transforms.RandomGrayscale(p=0.2),
            transforms.ToTensor(),
        ]
    )


def kornia_views():
    """The same in kornia, for a batch of floats from 0 to 1."""
    import kornia.augmentation as K

    return K.AugmentationSequential(
        K.RandomResizedCrop((32, 32), scale=(0.08, 1.0), resample="bicubic"),
        K.RandomHorizontalFlip(p=0.5),
        K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        K.RandomGrayscale(p=0.2),
        same_on_batch=False,
    )
