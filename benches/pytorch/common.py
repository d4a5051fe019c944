"""What the benches in PyTorch share: options, and laps on demand.

A bench prints `ready` when it is warm; then every line on standard input starts a lap of about `--seconds`, whose
outcome is a line {"items": images or views, "seconds": ...}, and "before": how many more it did before the clock started.
`src/learn/benches/throughput.rs` speaks the same way, so that `benches/run.py` can let two programs take turns.
"""

import argparse
import contextlib
import json
import math
import sys
import time

import torch

IMAGES = 4096
CLASSES = 10
# Batches that each worker of a loader prepares ahead: what PyTorch does by itself.
AHEAD = 2


def options(description, *more):
    parser = argparse.ArgumentParser(description=description)
    for names, settings in more:
        parser.add_argument(names, **settings)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a lap")
    found = parser.parse_args()
    if found.batch > IMAGES:
        parser.error(f"--batch {found.batch}: there are {IMAGES} images")
    torch.set_num_threads(found.threads)
    torch.manual_seed(1)
    return found


def serve(step, items, settings, loaded=False):
    """Laps of `step`, a function of nothing that works on `items` images or views. `loaded`: they come from a loader."""
    on_gpu = settings.device != "cpu"
    # What a loader has prepared while others had their turn is used up before the clock starts: a GPU would spend a whole lap on
    # it. On a CPU a step takes as long as many batches of the loader, and a lap is hardly flattered.
    ready = AHEAD * settings.threads if loaded and on_gpu else 0

    def lap(count):
        started = time.perf_counter()
        for _ in range(count):
            step()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    # As in throughput.rs; and all workers alike, as their batches come at once.
    few = ready or (10 if on_gpu else 1)
    lap(few)
    unit = ready or 1
    count = unit * max(1, math.ceil(settings.seconds * few / lap(few) / unit))
    print("ready", flush=True)
    for _ in sys.stdin:
        lap(ready)
        outcome = {"items": count * items, "seconds": lap(count), "before": ready * items}
        print(json.dumps(outcome), flush=True)


def precision(settings):
    """The context of a forward pass: autocast in the ways that end in bf16."""
    if settings.way.endswith("bf16"):
        return torch.autocast(torch.device(settings.device).type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def pixels(settings):
    """Images of noise as one tensor on the device, u8 [IMAGES, 3, 32, 32]."""
    return torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8, device=settings.device)


def shuffled(batch, device):
    """The indices of full batches, epoch after epoch, without end."""
    while True:
        for chosen in torch.randperm(IMAGES, device=device).split(batch):
            if len(chosen) == batch:
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
    """Batches without end, from a loader with as many workers as threads. At the end of an epoch, which is a few large batches,
    it would wait for its workers: so it has none."""
    loader = torch.utils.data.DataLoader(
        Transformed(pairs, transform),
        batch_sampler=(chosen.tolist() for chosen in shuffled(settings.batch, "cpu")),
        num_workers=settings.threads,
        prefetch_factor=AHEAD,
        pin_memory=settings.device != "cpu",
    )
    return iter(loader)


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
