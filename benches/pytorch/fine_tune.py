"""Fine-tuning a ResNet on images of 3x32x32, by cross-entropy, with SGD: images a second.

    python3 benches/pytorch/fine_tune.py [--architecture resnet18] [--way plain] ...     (needs torch, torchvision, pillow)

`--way plain` is how the paper's code trains: f32, row-major, eager, a data loader of PIL images. The others have the
images in memory as one tensor and add what PyTorch offers: `channels-last` (with the fused optimizer), `no-tf32` (that
with 32-bit floats on a GPU too, where PyTorch computes convolutions in TF32 otherwise), `bf16` (under autocast),
`compiled` and `compiled-bf16` (those through torch.compile), and on a GPU `compiled-graphs` and `compiled-graphs-bf16` (with
CUDA graphs too: `mode="reduce-overhead"`).
"""

import torch
import torch.nn.functional as F

import common

WAYS = ["plain", "channels-last", "no-tf32", "bf16", "compiled", "compiled-bf16", "compiled-graphs", "compiled-graphs-bf16"]


def from_memory(settings):
    """Batches of images that lie on the device, half of them flipped."""
    pixels = common.pixels(settings)
    labels = torch.arange(common.IMAGES, device=settings.device) % common.CLASSES
    for chosen in common.shuffled(settings.batch, settings.device):
        batch = pixels[chosen].float().div_(255)
        flipped = torch.rand(len(chosen), 1, 1, 1, device=settings.device) < 0.5
        batch = torch.where(flipped, batch.flip(3), batch)
        yield batch.contiguous(memory_format=torch.channels_last), labels[chosen]


def from_loader(settings):
    from torchvision import transforms

    light = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    return common.batches(common.images(), light, settings)


def main():
    settings = common.options(
        __doc__,
        ("--architecture", {"default": "resnet18"}),
        ("--way", {"default": "plain", "choices": WAYS}),
    )
    plain = settings.way == "plain"
    torch.backends.cudnn.allow_tf32 = settings.way != "no-tf32"
    network = common.resnet(settings.architecture, common.CLASSES).to(settings.device).train()
    if not plain:
        network = network.to(memory_format=torch.channels_last)
    groups = [
        {"params": [p for n, p in network.named_parameters() if "bn" not in n], "weight_decay": 1e-4},
        {"params": [p for n, p in network.named_parameters() if "bn" in n], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, fused=None if plain else True)
    mode = "reduce-overhead" if settings.way.startswith("compiled-graphs") else "default"
    forward = torch.compile(network, mode=mode) if settings.way.startswith("compiled") else network
    source = from_loader(settings) if plain else from_memory(settings)

    def step():
        batch, labels = next(source)
        batch = batch.to(settings.device, non_blocking=True)
        labels = labels.to(settings.device, non_blocking=True)
        # First, as gradients may be in the memory of a graph, which the next pass overwrites.
        optimizer.zero_grad()
        with common.precision(settings):
            logits = forward(batch)
        loss = F.cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()

    common.serve(step, settings.batch, settings, loaded=plain)


if __name__ == "__main__":
    main()
