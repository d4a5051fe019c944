"""Making SimCLR views of images of 3x32x32: views a second.

    python3 benches/pytorch/augment.py [--library torchvision] ...     (needs torch, torchvision, pillow; kornia)

`torchvision` is its transforms on PIL images in one thread, an image at a time; `kornia` is its batched augmentations
on a tensor, with `--threads` threads.
"""

import itertools

import torch

import common


def by_torchvision(settings):
    transform, pairs = common.simclr_views(), itertools.cycle(common.images())

    def step():
        torch.stack([transform(image) for image, _ in itertools.islice(pairs, settings.batch)])

    return step


def by_kornia(settings):
    views = common.kornia_views()
    images = torch.rand(settings.batch, 3, 32, 32, device=settings.device)

    def step():
        with torch.no_grad():
            views(images).clamp_(0, 1)

    return step


def main():
    libraries = {"torchvision": by_torchvision, "kornia": by_kornia}
    settings = common.options(__doc__, ("--library", {"default": "torchvision", "choices": libraries}))
    common.serve(libraries[settings.library](settings), settings.batch, settings)


if __name__ == "__main__":
    main()
