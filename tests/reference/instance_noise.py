#!/usr/bin/env python3
"""Part-dependent label noise (Xia et al., 2020), computed step by step as get_instance_noisy_label of its authors does, with SciPy's
truncated normal distribution, NumPy's legacy global generator and PyTorch in 32 bits: instance_noise.json.

    python3 tests/reference/instance_noise.py     (needs numpy, scipy, torch)
"""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy_noise import digest
from scipy.stats import truncnorm

HERE = Path(__file__).parent
SPREAD = 0.1


def fashion_mnist():
    """The 5,000 training images of the quickstart."""
    archive = zipfile.ZipFile(HERE / "../../pipelines/data/fashion-mnist-6k.zip")
    pixels = np.frombuffer(archive.read("train-images-idx3-ubyte"), np.uint8)[16:]
    labels = np.frombuffer(archive.read("train-labels-idx1-ubyte"), np.uint8)[8:]
    return pixels.reshape(len(labels), -1).copy(), labels.astype(np.int64), np.arange(len(labels)), 10


def formula():
    """Images of 105 numbers and three classes, in another order and not all of them; an odd number of projections' weights."""
    samples, places = np.arange(400)[:, None], np.arange(105)[None, :]
    pixels = ((samples * 31 + places * 17 + samples * places * 7) % 11 // 9).astype(np.uint8)
    return pixels, np.arange(400) % 3, np.arange(400) * 237 % 400, 3


def noisy(name, images, rate, seed, drawn=None):
    pixels, clean, order, classes = images
    order = order[:drawn]
    np.random.seed(seed)
    flips = truncnorm(-rate / SPREAD, (1 - rate) / SPREAD, loc=rate, scale=SPREAD).rvs(len(order))
    weights = torch.FloatTensor(np.random.randn(classes, pixels.shape[1], classes))

    def probabilities(sample, flip, weights):
        label = clean[sample]
        row = torch.from_numpy(pixels[sample]).to(weights.dtype)[None].mm(weights[label])[0]
        row[label] = -torch.inf
        row = flip * torch.softmax(row, 0)
        row[label] += 1 - flip
        return row

    labels = clean.copy()
    rows = [probabilities(sample, flip, weights).numpy() for sample, flip in zip(order, flips)]
    for sample, row in zip(order, rows):
        labels[sample] = np.random.choice(classes, p=row)
    first = [probabilities(sample, flip, weights.double()) for sample, flip in zip(order[:5], flips)]
    return {
        "images": name,
        "seed": seed,
        "rate": rate,
        "drawn": len(order),
        "flip_rates": flips[:5].tolist(),
        "probabilities": [row.tolist() for row in first],
        "first": labels[:12].tolist(),
        "sha256": digest(labels),
        "wrong": int((labels != clean).sum()),
    }


def main() -> None:
    fashion = fashion_mnist()
    rates = [(0.1, 1), (0.2, 1), (0.2, 220), (0.3, 5), (0.4, 1), (0.4, 220), (0.5, 2), (0.9, 3)]
    cases = [noisy("fashion-mnist", fashion, rate, seed) for rate, seed in rates]
    cases += [noisy("formula", formula(), rate, 7, 390) for rate in (0.0, 0.45, 1.0)]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "instance_noise.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
