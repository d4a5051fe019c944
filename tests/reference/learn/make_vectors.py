"""Numbers that the Rust code must reproduce, computed by PyTorch 2.11.

    python3 tests/reference/learn/make_vectors.py     (needs torch; writes vectors.json beside itself)

Inputs are made by the formula `fill`, on both sides, so that the file holds results alone.
"""

import json
import math
import pathlib

import torch
import torch.nn.functional as F
from networks import ARCHITECTURES, fill, fill_network

torch.set_num_threads(1)


def gradients(make, images):
    """In 64 bits, and how far from them 32 bits are, as a share of the largest."""

    def norms(dtype):
        network = make()
        fill_network(network)
        logits = network.to(dtype).train()(images.to(dtype))
        F.cross_entropy(logits, torch.tensor([3, 0, 9, 9])).backward()
        return [parameter.grad.norm().item() for parameter in network.parameters()]

    exact, single = norms(torch.float64), norms(torch.float32)
    error = max(abs(one - other) for one, other in zip(exact, single))
    return {"gradient_norms": exact, "gradient_error": error / max(exact)}


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
            **gradients(make, images),
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


vectors = {
    "networks": networks(),
    "losses": losses(),
    "nt_xent": nt_xent(),
    "optimizers": optimizers(),
    "resize": resize(),
}
path = pathlib.Path(__file__).with_name("vectors.json")
path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")) + "\n")
