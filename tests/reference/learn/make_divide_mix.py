"""DivideMix in PyTorch 2.11 and scikit-learn: twenty steps of two networks, and mixtures of two normal distributions.

    python3 tests/reference/learn/make_divide_mix.py     (needs torch and scikit-learn; writes divide_mix.json beside itself)

By the formulae of src/learn/methods/divide_mix, whose header says what is unlike the authors' code. Inputs are made by the
formula `fill`, on both sides, so that the file holds results alone. In float64, as in make_methods.py.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from networks import ARCHITECTURES, fill, fill_network
from sklearn.mixture import GaussianMixture

torch.set_num_threads(1)

STEPS = 20
BATCH = 64
BATCHES = 4
CLASSES = 10
# Samples of a step on each side of each network's division.
SIDE = BATCH // 4
WARMUP_EPOCHS = 1
RAMP_UP_EPOCHS = 3
CONFIDENCE_PENALTY = 0.5
TEMPERATURE = 0.5
UNLABELLED_WEIGHT = 25.0
CLASS_BALANCE = 1.0


SETTINGS = dict(n_components=2, max_iter=10, tol=1e-2, reg_covar=5e-4)


def probability_of_lower(numbers):
    """By scikit-learn, from the two clusters of least squares."""
    numbers = np.asarray(numbers, dtype=np.float64)
    order = np.sort(numbers)
    cuts = [(order[:size], order[size:]) for size in range(1, len(order))]
    clusters = min(cuts, key=lambda cut: sum(((one - one.mean()) ** 2).sum() for one in cut))
    mixture = GaussianMixture(
        **SETTINGS,
        weights_init=[len(one) / len(numbers) for one in clusters],
        means_init=[[one.mean()] for one in clusters],
        precisions_init=[[[1 / (one.var() + SETTINGS["reg_covar"])]] for one in clusters],
    )
    return of_lower(mixture, numbers)


def of_lower(mixture, numbers):
    mixture.fit(numbers[:, None])
    return mixture.predict_proba(numbers[:, None])[:, mixture.means_.argmin()]


def mixtures():
    """Numbers from 0 to 1 with a lower and an upper heap, near and far from each other, of equal and of different sizes, and
    with one number far away of both."""
    made = []
    for stream, (low, high, border, wide, outlier) in enumerate(
        [(60, 60, 0.3, 0.7, 1), (180, 20, 0.2, 0.6, 1), (30, 170, 0.5, 0.5, 1), (120, 80, 0.2, 0.4, 2.5)]
    ):
        lower = fill((low,), 5000 + 2 * stream, 0.0, 1.0).double().numpy() ** 2 * border
        upper = 1 - fill((high,), 5001 + 2 * stream, 0.0, 1.0).double().numpy() ** 2 * wide
        far = [outlier] if outlier > 1 else []
        numbers = np.concatenate([lower, upper, far]) / outlier
        found = probability_of_lower(numbers)
        # From its own start, which is random.
        own = of_lower(GaussianMixture(**SETTINGS, random_state=0), numbers)
        assert np.abs(found - own).max() < 1e-6, "scikit-learn finds another mixture"
        parameters = [low, high, border, wide, outlier]
        made.append({"parameters": parameters, "probabilities": found[::4].tolist()})
    return made


def batch(stream):
    """Images, another view of them, and labels, of which the first sample is at 64 times the stream."""
    images = fill((BATCH, 3, 16, 16), 2000 + stream, 0.0, 1.0).double()
    view = fill((BATCH, 3, 16, 16), 2100 + stream, 0.0, 1.0).double()
    return images, view, (torch.arange(BATCH) * 3 + stream) % CLASSES


def sharp(q):
    q = q ** (1 / TEMPERATURE)
    return q / q.sum(1, keepdim=True)


def softmax(logits):
    return torch.softmax(logits, 1)


def measured(networks):
    """The probability that the label of each sample is right, by each network."""
    columns = []
    for network in networks:
        network.eval()
        with torch.no_grad():
            losses = [
                F.cross_entropy(network(images), labels, reduction="none")
                for images, _, labels in map(batch, range(BATCHES))
            ]
        network.train()
        losses = torch.cat(losses)
        scaled = (losses - losses.min()) / (losses.max() - losses.min())
        columns.append(torch.tensor(probability_of_lower(scaled.numpy())))
    return torch.stack(columns, 1)


def divided(step, number, own, other, clean):
    """The loss of a network in a step, and its parts. Its sides are two quarters of the batch."""
    stream = step % BATCHES
    images, view, labels = batch(stream)
    first = 2 * SIDE * number
    x, u = slice(first, first + SIDE), slice(first + SIDE, first + 2 * SIDE)
    views = [images[x], view[x], images[u], view[u]]
    with torch.no_grad():
        p = [softmax(own(one)) for one in views]
        other.eval()
        guesses = [softmax(other(one)) for one in (images[u], view[u])]
        other.train()
        w = clean[BATCH * stream :][x, 1 - number, None]
        y = F.one_hot(labels[x], CLASSES).double()
        refined = sharp(w * y + (1 - w) * (p[0] + p[1]) / 2)
        guessed = sharp((p[2] + p[3] + guesses[0] + guesses[1]) / 4)
        targets = torch.cat([refined, refined, guessed, guessed])
        share = fill((2,), 3200 + stream, 0.5, 1.0).double()[number]
        partners = (torch.arange(4 * SIDE) * 7 + 3 + stream + number) % (4 * SIDE)
        inputs = torch.cat(views)
        inputs = share * inputs + (1 - share) * inputs[partners]
        targets = share * targets + (1 - share) * targets[partners]
    logits = own(inputs)
    labelled = -(targets[: 2 * SIDE] * F.log_softmax(logits[: 2 * SIDE], 1)).sum(1).mean()
    unlabelled = F.mse_loss(softmax(logits[2 * SIDE :]), targets[2 * SIDE :])
    prior = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    imbalance = (prior * (prior / softmax(logits).mean(0)).log()).sum()
    risen = min(max((step / BATCHES - WARMUP_EPOCHS) / RAMP_UP_EPOCHS, 0), 1)
    loss = labelled + UNLABELLED_WEIGHT * risen * unlabelled + CLASS_BALANCE * imbalance
    return loss, [labelled.item(), unlabelled.item()]


def warm_up(step, network):
    images, _, labels = batch(step % BATCHES)
    logits = network(images)
    p = softmax(logits)
    cross_entropy = F.cross_entropy(logits, labels)
    return cross_entropy + CONFIDENCE_PENALTY * (p * p.log()).sum(1).mean(), [cross_entropy.item()]


def trajectory():
    networks = [ARCHITECTURES["resnet8"]() for _ in range(2)]
    for network, offset in zip(networks, (0, 500)):
        fill_network(network, offset)
        network.double().train()
    rules = [torch.optim.SGD(one.parameters(), lr=0.001, momentum=0.9) for one in networks]
    made = {"losses": [], "gradients": [], "clean": []}
    clean = None
    for step in range(STEPS):
        is_divided = step // BATCHES >= WARMUP_EPOCHS
        if is_divided and step % BATCHES == 0:
            clean = measured(networks)
            made["clean"].append(clean[::8].flatten().tolist())
        losses = []
        for number, (own, rule) in enumerate(zip(networks, rules)):
            other = networks[1 - number]
            loss, parts = divided(step, number, own, other, clean) if is_divided else warm_up(step, own)
            rule.zero_grad()
            loss.backward()
            if step == 0:
                # Of the last layer, as in make_methods.py.
                of_layer = own.fc.named_parameters()
                made["gradients"].append({name: p.grad.flatten().tolist() for name, p in of_layer})
            rule.step()
            losses.append(parts)
        made["losses"].append(np.mean(losses, axis=0).tolist())
    return made


def short(value):
    """The numbers with nine digits."""
    if isinstance(value, dict):
        return {name: short(one) for name, one in value.items()}
    if isinstance(value, list):
        return [short(one) for one in value]
    return float(f"{value:.9g}")


vectors = {"mixtures": mixtures(), **trajectory()}
path = pathlib.Path(__file__).with_name("divide_mix.json")
path.write_text(json.dumps(short(vectors), indent=None, separators=(",", ":")) + "\n")
