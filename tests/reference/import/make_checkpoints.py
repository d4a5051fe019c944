"""Writes checkpoints/: small files as PyTorch, Lightning, SimCLR and others save them, and what they hold.

    python3 tests/reference/import/make_checkpoints.py

Needs torch 2.x, numpy and safetensors. Nothing in the files is random.
"""

import argparse
import collections
import gzip
import io
import json
import pathlib
import pickle
import shutil
import sys
import types
import zipfile

import numpy as np
import torch
from safetensors.torch import save as save_tensors

HERE = pathlib.Path(__file__).parent
OUT = HERE / "checkpoints"
EXPECTED = {}


def save(name, thing, **options):
    torch.save(thing, OUT / name, **options)


def numbers(tensor):
    if not tensor.is_floating_point():
        return tensor.long().flatten().tolist()
    # JSON has no infinity.
    return [value if np.isfinite(value) else str(value) for value in tensor.double().flatten().tolist()]


def expect(name, tensors):
    """What a reader must find, as f32 or i64 in row-major order."""
    EXPECTED[name] = {
        key: {
            "type": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "values": numbers(tensor),
        }
        for key, tensor in tensors.items()
    }


def every_type():
    values = torch.tensor([0.0, -0.5, 1.0, 65504.0, 2.0**-14, 2.0**-24, 3.0 * 2.0**-20, -1.5])
    counted = torch.arange(-2, 4)
    tensors = {
        "float16": values.half(),
        "bfloat16": values.bfloat16(),
        "float32": values,
        "float64": values.double(),
        "int64": counted * 2**40,
        "int32": counted.int(),
        "int16": counted.short(),
        "int8": counted.to(torch.int8),
        "uint8": counted.abs().to(torch.uint8),
        "bool": counted > 0,
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "infinite": torch.tensor([float("inf"), -float("inf")]).half(),
    }
    return tensors


def every_layout():
    base = torch.arange(24.0)
    return {
        "plain": base.reshape(2, 3, 4),
        "transposed": base.reshape(4, 6).t(),
        "permuted": base.reshape(2, 3, 4).permute(2, 0, 1),
        "channels_last": base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "a part": base[5:11],
        "every other": base[1::2],
        "a column": base.reshape(4, 6)[:, 2],
        "a parameter": torch.nn.Parameter(base.reshape(4, 6)),
        "one": base[3],
    }


class AttributeDict(dict):
    """Stands for Lightning's class of this name, which is not installed here."""


def in_module(name, cls):
    """Lets a class pickle under the module of the package that is not installed."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(parts[end - 1]))
    setattr(sys.modules[name], cls.__name__, cls)
    cls.__module__ = name
    return cls


# --- A network: the smallest that the tool has ---------------------------------------------------------


def resnet8(fill):
    """The state dict of the 16-32-64 CIFAR ResNet with one block a stage, without its classifier."""
    state = collections.OrderedDict()

    def add(name, *shape):
        state[name] = fill(len(state), shape)

    def norm(name, channels):
        for part in ["weight", "bias", "running_mean", "running_var"]:
            add(f"{name}.{part}", channels)
        state[f"{name}.num_batches_tracked"] = torch.tensor(len(state))

    add("conv1.weight", 16, 3, 3, 3)
    norm("bn1", 16)
    inputs = 16
    for stage, channels in enumerate([16, 32, 64], start=1):
        for index in [1, 2]:
            add(f"layer{stage}.0.conv{index}.weight", channels, inputs, 3, 3)
            norm(f"layer{stage}.0.bn{index}", channels)
            inputs = channels
    return state


def counted(number, shape):
    """Few different values, so that it compresses well; each is exact in float16."""
    count = int(np.prod(shape))
    return (number + (torch.arange(count) % 7) / 32).reshape(shape)


def prefixed(prefix, state):
    return collections.OrderedDict((prefix + name, tensor) for name, tensor in state.items())


def simclr(state):
    """As the reference code saves its contrastive models."""
    names = prefixed("convnet.", state)
    names["convnet.fc.weight"] = torch.ones(2, 64)
    names["convnet.fc.bias"] = torch.ones(2)
    for layer in ["projection.fc1.weight", "projection.bn1.weight", "projection.bn1.running_mean"]:
        names[layer] = torch.ones(4)
    hparams = argparse.Namespace(
        problem="sim-clr",
        root=pathlib.PosixPath("/somewhere/logs"),
        lr=np.float64(4.0),
        iters=np.int64(48000),
        color_dist_s=0.5,
        gpu=None,
    )
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 4.0, "params": [0]}]}
    return {"state_dict": names, "hparams": hparams, "opt_state_dict": optimizer, "iter": 48000}


def save_deflated(name, thing):
    """Saves an archive whose entries are compressed, as a hand with a zip program makes it from PyTorch's."""
    stored = io.BytesIO()
    torch.save(thing, stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(OUT / name, "w", zipfile.ZIP_DEFLATED) as out:
        for entry in source.infolist():
            # PyTorch calls the folder after the file.
            path = name.split(".")[0] + "/" + entry.filename.split("/", 1)[1]
            out.writestr(zipfile.ZipInfo(path), source.read(entry), zipfile.ZIP_DEFLATED)


def save_gzipped(name, save_to):
    """Saves a file and compresses it: tests unpack it first."""
    content = io.BytesIO()
    save_to(content)
    (OUT / f"{name}.gz").write_bytes(gzip.compress(content.getvalue(), mtime=0))


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()

    types_, layouts = every_type(), every_layout()
    save("types.pt", types_)
    save("types-legacy.pt", types_, _use_new_zipfile_serialization=False)
    (OUT / "types.safetensors").write_bytes(save_tensors(types_))
    for name in ["types.pt", "types-legacy.pt", "types.safetensors"]:
        expect(name, types_)
    save("layouts.pt", layouts)
    save("layouts-legacy.pth", layouts, _use_new_zipfile_serialization=False, pickle_protocol=4)
    for name in ["layouts.pt", "layouts-legacy.pth"]:
        expect(name, {key: tensor.detach() for key, tensor in layouts.items()})

    arrays = {"float32": np.arange(6, dtype=np.float32).reshape(2, 3), "int64": np.arange(3)}
    for protocol in [2, 4]:
        (OUT / f"arrays-{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol=protocol))
        expect(f"arrays-{protocol}.pkl", {key: torch.from_numpy(array) for key, array in arrays.items()})
    # As the human labels of CIFAR-10N are published.
    save("human.pt", {"aggre_label": np.arange(8), "worse_label": np.arange(8)[::-1].copy()})
    expect("human.pt", {"aggre_label": torch.arange(8), "worse_label": torch.arange(7, -1, -1)})

    lightning = in_module("pytorch_lightning.utilities.parsing", AttributeDict)
    checkpoint = {
        "epoch": 3,
        "pytorch-lightning_version": "1.5.10",
        "hyper_parameters": lightning(lr=0.1, name="resnet8"),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "state_dict": collections.OrderedDict({"net.weight": torch.ones(2)}),
    }
    save("lightning.ckpt", checkpoint)
    save("module.pth", torch.nn.Linear(2, 2))

    state = resnet8(counted)
    save_deflated("simclr.pth.tar", simclr(state))
    linear = {"linear_layer.weight": torch.ones(2, 64), "linear_layer.bias": torch.ones(2)}
    save_deflated("imagenet32.pth.tar", {"state_dict": prefixed("encode_layer.convnet.", state) | linear})
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    save_deflated("half.bin", {"model": halves})
    # MoCo's: a query encoder and a key encoder of the same shape, under DataParallel.
    zeros = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    both = prefixed("module.encoder_q.", state) | prefixed("module.encoder_k.", zeros)
    save_deflated("moco.pth.tar", {"epoch": 200, "arch": "resnet8", "state_dict": both})
    # Written before PyTorch 0.4.1, which began to count batches.
    uncounted = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    classifier = {"fc.weight": torch.ones(2, 64), "fc.bias": torch.ones(2)}
    parallel = {"state_dict": prefixed("module.", uncounted | classifier), "best_acc1": torch.tensor(76.1)}
    save_gzipped("parallel.pth.tar", lambda file: torch.save(parallel, file, _use_new_zipfile_serialization=False))
    save_gzipped("backbone.safetensors", lambda file: file.write(save_tensors(prefixed("backbone.", state))))
    # Every tensor a part of one storage, as after flattening the parameters.
    flat = torch.cat([tensor.flatten() for tensor in state.values() if tensor.is_floating_point()])
    parts = {}
    start = 0
    for name, tensor in state.items():
        parts[name] = tensor
        if tensor.is_floating_point():
            parts[name] = flat[start : start + tensor.numel()].reshape(tensor.shape)
            start += tensor.numel()
    save_deflated("flat.pt", parts)
    (OUT / "expected.json").write_text(json.dumps(EXPECTED) + "\n")
    for path in sorted(OUT.iterdir()):
        print(f"{path.stat().st_size:8} {path.name}")


main()
