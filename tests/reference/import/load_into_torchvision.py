"""Loads weights that `pipeline` wrote into torchvision's ResNets, by name and strictly.

    python3 tests/reference/import/load_into_torchvision.py ARTIFACT [CHECKPOINT]

ARTIFACT: the output folder of a stage (`pipeline path STAGE`) with weights.safetensors and model.json, of
the architecture resnet18, resnet34, resnet50, resnet18-224 or resnet50-224; an encoder or a whole classifier.
CHECKPOINT: what `import-weights` read, to compare tensor by tensor.

Prints what was checked, and OK. Needs torch, torchvision and safetensors.
"""

import json
import pathlib
import sys

import torch
import torchvision
from safetensors.torch import load_file


def network(architecture, channels, classes):
    """torchvision's ResNet; for small images with the CIFAR stem in place of its own."""
    name, _, size = architecture.partition("-")
    model = getattr(torchvision.models, name)(weights=None, num_classes=max(classes, 1))
    if size != "224":
        model.conv1 = torch.nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
        model.maxpool = torch.nn.Identity()
    elif channels != 3:
        model.conv1 = torch.nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if classes == 0:
        model.fc = torch.nn.Identity()
    return model


def same_as_checkpoint(tensors, path):
    """Compares with the tensors of a checkpoint, whatever comes before their names there."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    state = checkpoint.get("state_dict", checkpoint)
    # The first layers of blocks are called so too, behind longer names.
    prefix = min((name for name in state if name.endswith("conv1.weight")), key=len).removesuffix("conv1.weight")
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked") and prefix + name not in state:
            assert tensor == 0, name
            continue
        assert torch.equal(tensor, state[prefix + name].to(tensor.dtype)), name
    print(f"{len(tensors)} tensors equal those behind '{prefix}' in {pathlib.Path(path).name}")


def main(artifact, checkpoint=None):
    artifact = pathlib.Path(artifact)
    info = json.loads((artifact / "model.json").read_text())
    tensors = load_file(artifact / "weights.safetensors")
    image = info["input"]
    model = network(info["architecture"], image["channels"], len(info["classes"]))
    model.load_state_dict(tensors, strict=True)
    model.eval()
    with torch.no_grad():
        output = model(torch.rand(2, image["channels"], image["height"], image["width"]))
    expected = (2, len(info["classes"]) or info["features"])
    assert tuple(output.shape) == expected and output.isfinite().all(), output.shape
    print(f"{len(tensors)} tensors loaded into torchvision's {info['architecture']}; images give {expected}")
    if checkpoint:
        same_as_checkpoint(tensors, checkpoint)
    print("OK")


main(*sys.argv[1:])
