#!/usr/bin/env python3
"""What NumPy's legacy global generator gives: numpy_draws.json (its single draws) and numpy_noise.json
(noisy labels by the protocol of "Contrastive Learning Improves Model Robustness Under Label Noise").
"""

import hashlib
import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
SEEDS = (0, 1, 220, 221, 222, 223, 224, 2**32 - 1)

CIFAR10_PAIRS = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}
# Any derangement will do here: the Rust tests check CIFAR-100's own pairs by name.
CYCLE_PAIRS = {label: (label // 5) * 5 + (label + 1) % 5 for label in range(100)}


def digest(numbers) -> str:
    return hashlib.sha256(np.asarray(numbers).astype("<i8").tobytes()).hexdigest()


def draws(seed: int) -> dict:
    np.random.seed(seed)
    # In this order, without seeding between them: an error in one shows in all that follow.
    return {
        "seed": seed,
        "uniform": [np.random.random_sample() for _ in range(5)],
        "one_of": [[size, int(np.random.choice(size))] for size in (1, 2, 3, 9, 10, 64, 65, 99, 100, 1000, 1)],
        "two_of": [[size, np.random.choice(size, 2, replace=False).tolist()] for size in (2, 3, 9, 99, 128)],
        "weighted": [int(np.random.choice(4, p=[0.1, 0.2, 0.3, 0.4])) for _ in range(40)],
        "last": np.random.random_sample(),
        "normal": [np.random.randn() for _ in range(7)],
        "behind_normal": np.random.random_sample(),
        "some_of": [[n, np.random.choice(n, k, replace=False).tolist()] for n, k in ((9, 9), (40, 3), (7, 0), (1000, 5))],
    }


def matrix(noise: str, rate: float, classes: int) -> np.ndarray:
    diagonal = np.eye(classes) * (1 - rate)
    if noise == "symmetric":
        return rate * np.full((classes, classes), 1 / classes) + diagonal
    if noise == "asymmetric":
        rows = np.eye(classes)
        for source, target in (CIFAR10_PAIRS if classes == 10 else CYCLE_PAIRS).items():
            rows[source, source], rows[source, target] = 1 - rate, rate
        return rows
    everyone = np.arange(classes)
    if noise == "pairflip":
        diagonal[everyone, (everyone + 1) % classes] = rate
        return diagonal
    for row in range(classes):
        others = everyone[everyone != row]
        if noise == "flip":
            diagonal[row][np.random.choice(others)] = rate
        else:
            diagonal[row][np.random.choice(others, 2, replace=False)] = rate / 2
    return diagonal


def noisy_labels(seed: int, noise: str, rate: float, classes: int) -> dict:
    samples = 4000
    clean = np.arange(samples) * 7 % classes
    order = np.arange(samples) * 1237 % samples  # 1237 and 4000 share no factor: a permutation
    np.random.seed(seed)
    rows = matrix(noise, rate, classes)
    labels = clean.copy()
    for sample in order[:3900]:
        labels[sample] = np.random.choice(classes, p=rows[clean[sample]])
    return {
        "seed": seed,
        "noise": noise,
        "rate": rate,
        "classes": classes,
        "first": labels[:12].tolist(),
        "sha256": digest(labels),
        "wrong": int((labels != clean).sum()),
    }


def write(name: str, cases: list) -> None:
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / name).write_text(f"[\n{lines}\n]\n")


def main() -> None:
    write("numpy_draws.json", [draws(seed) for seed in SEEDS])
    kinds = [(noise, rate) for noise in ("symmetric", "flip", "flip2", "asymmetric") for rate in (0.2, 0.8)]
    kinds += [("symmetric", 0.95), ("symmetric", 0.0), ("flip", 1.0), ("asymmetric", 0.4)]
    kinds += [("pairflip", 0.45), ("pairflip", 1.0)]
    write(
        "numpy_noise.json",
        [
            noisy_labels(seed, noise, rate, classes)
            for seed in (0, 220, 224)
            for classes in (10, 100)
            for noise, rate in kinds
        ],
    )


if __name__ == "__main__":
    main()
