"""Labels from features in NumPy and PyTorch 2.11: neighbours, WANN, one regression without each sample, soft labels by autograd.

    python3 tests/reference/learn/make_purification.py     (needs torch; writes purification.json beside itself)

Inputs are made by the formula `fill`, on both sides, so that the file holds results alone. In float64. No two neighbours of a
sample are nearer to each other than `GAP`, and no two classes, so that float32 finds the same.
"""

import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from networks import fill

torch.set_num_threads(1)

GAP = 1e-6
CLASSES, SAMPLES, WIDTH, CLEAN = 4, 60, 6, 16
K, LEAST, MOST = 9, 3, 11
RIDGE = 1e-2
STEPS, RATE = 30, 0.01


def features(count, stream):
    """Samples of the classes 0, 1, 2, 3, 0, ...: noise, with one feature larger."""
    rows = fill((count, WIDTH), stream, 0.0, 1.0).numpy().astype(np.float64)
    rows[np.arange(count), np.arange(count) % CLASSES] += 0.75
    return rows.astype(np.float32).astype(np.float64)


X = features(SAMPLES, 90)
index = np.arange(SAMPLES)
labels = np.where(index % 3 == 0, (index + 1 + index // 3) % CLASSES, index % CLASSES)
V, clean = features(CLEAN, 91), np.arange(CLEAN) % CLASSES

# --- Neighbours ---------------------------------------------------------------------------------

unit = X / np.linalg.norm(X, axis=1, keepdims=True)
cosines = unit @ unit.T
np.fill_diagonal(cosines, -np.inf)
gaps = np.diff(np.sort(-cosines, axis=1)[:, : MOST + 1], axis=1)
assert gaps.min() > GAP, f"two neighbours are {gaps.min()} apart: use other inputs"
order = [[j for j in np.argsort(-cosines[i]) if j != i] for i in range(SAMPLES)]


def majority(of):
    classes, counts = np.unique(labels[of], return_counts=True)
    return int(classes[np.argmax(counts)]), float(counts.max() / len(of))


plain = [majority(nearest[:K]) for nearest in order]

sizes = np.full(SAMPLES, -1)
for k in range(LEAST, MOST, 2):
    for i in index[sizes == -1]:
        if majority(order[i][:k])[0] == labels[i]:
            sizes[i] = k
sizes[sizes == -1] = MOST

adaptive = []
for i in range(SAMPLES):
    votes = np.zeros(CLASSES)
    for j in order[i][: sizes[order[i][0]]]:
        votes[labels[j]] += 1 / sizes[j]
    second, first = np.sort(votes)[-2:]
    assert first - second > GAP or first == second, "two classes have almost equal votes: use other inputs"
    adaptive.append((int(np.argmax(votes)), float(votes.max() / votes.sum())))

# --- Regressions --------------------------------------------------------------------------------

Y = np.eye(CLASSES)[labels]
centred = X - X.mean(0)
penalty = RIDGE * np.trace(centred.T @ centred) / WIDTH * np.eye(WIDTH)
without = []
for i in range(SAMPLES):
    rest = index != i
    mean, centre = X[rest].mean(0), Y[rest].mean(0)
    rows = X[rest] - mean
    weights = np.linalg.solve(rows.T @ rows + penalty, rows.T @ (Y[rest] - centre))
    without.append(centre + (X[i] - mean) @ weights)

# What clean samples see of the labels of the others.
seen = np.linalg.solve(centred.T @ centred + penalty, centred.T)
seen = torch.tensor((V - X.mean(0)) @ seen + 1 / SAMPLES)
soft = torch.tensor(Y, requires_grad=True)
adam = torch.optim.Adam([soft], RATE, betas=(0.5, 0.999))
target, wanted = torch.tensor(clean), torch.eye(CLASSES, dtype=torch.float64)[clean]
for _ in range(STEPS):
    predicted = seen @ soft
    loss = F.cross_entropy(predicted, target) + (predicted - wanted).square().sum()
    adam.zero_grad()
    loss.backward()
    adam.step()
fitted = soft.detach().numpy()
fitted = fitted.mean(0) + centred @ np.linalg.solve(centred.T @ centred + penalty, centred.T @ fitted)

numbers = {
    "neighbours": [[int(j) for j in nearest[:K]] for nearest in order],
    "most_frequent": {"labels": [one[0] for one in plain], "shares": [one[1] for one in plain]},
    "sizes": sizes.tolist(),
    "adaptive": {"labels": [one[0] for one in adaptive], "shares": [one[1] for one in adaptive]},
    "without_itself": np.array(without).flatten().tolist(),
    "fitted": fitted.flatten().tolist(),
}
pathlib.Path(__file__).with_name("purification.json").write_text(json.dumps(numbers) + "\n")
