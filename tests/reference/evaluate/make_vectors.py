"""Top-5 accuracy, calibration error and the area under the ROC curve, by NumPy.

    python3 tests/reference/evaluate/make_vectors.py     (needs numpy; writes vectors.json beside itself)
"""

import json
import pathlib

import numpy as np

BINS = 15


def calibration(confidence, right):
    """Guo et al. (2017), equation 3, with bins (lower, upper]."""
    edges = np.linspace(0, 1, BINS + 1)
    error, rows = 0.0, []
    for lower, upper in zip(edges[:-1], edges[1:]):
        inside = (confidence > lower) & (confidence <= upper)
        if inside.any():
            gap = abs(confidence[inside].mean() - right[inside].mean())
            error += inside.mean() * gap
            rows.append((int(inside.sum()), confidence[inside].mean(), right[inside].mean()))
        else:
            rows.append((0, -1.0, -1.0))
    samples, mean_confidence, mean_accuracy = zip(*rows)
    return {
        "ece": error,
        "samples": samples,
        "mean_confidence": mean_confidence,
        "mean_accuracy": mean_accuracy,
    }


def area_under_curve(losses, corrupted):
    """By the trapezoids under the curve, one point a threshold."""
    points = [(0.0, 0.0)]
    for threshold in np.unique(losses)[::-1]:
        flagged = losses >= threshold
        points.append(((flagged & ~corrupted).sum() / (~corrupted).sum(), (flagged & corrupted).sum() / corrupted.sum()))
    false_rate, true_rate = np.array(points).T
    return float(np.trapezoid(true_rate, false_rate))


def classification(rng):
    logits = rng.normal(size=(60, 8)) * 2
    labels = rng.integers(0, 8, size=60)
    logits[np.arange(60), labels] += 1.0
    # Few digits for the file, and some ties; the network gives 32 bits.
    logits = logits.round(1)
    wide = logits.astype(np.float32).astype(np.float64)
    log_sum = np.log(np.exp(wide).sum(1))
    loss = (log_sum - wide[np.arange(60), labels]).mean()
    # A stable sort: of equal logits the class with the smaller number comes first.
    order = np.argsort(-wide, axis=1, kind="stable")
    right = order[:, 0] == labels
    confidence = np.exp(wide.max(1) - log_sum)
    return {
        "logits": logits.ravel().tolist(),
        "labels": labels.tolist(),
        "test-accuracy": right.mean(),
        "test-top5-accuracy": (order[:, :5] == labels[:, None]).any(1).mean(),
        "test-loss": loss,
        "test-ece": calibration(confidence, right)["ece"],
    }


def main():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, size=80).round(3)
    confidence[:20] = rng.uniform(0.9, 1, size=20).round(3)
    confidence[0] = 1.0
    right = rng.uniform(size=80) < confidence**2
    detection = []
    for digits in [8, 1, 0]:
        corrupted = rng.uniform(size=50) < 0.3
        losses = (rng.exponential(size=50) + corrupted * 0.7).round(digits)
        detection.append(
            {"losses": losses.tolist(), "corrupted": corrupted.tolist(), "auc": area_under_curve(losses, corrupted)}
        )
    vectors = {
        "calibration": {"confidence": confidence.tolist(), "right": right.tolist(), **calibration(confidence, right)},
        "classification": classification(rng),
        "noise_detection": detection,
    }
    path = pathlib.Path(__file__).with_name("vectors.json")
    path.write_text(json.dumps(vectors, default=float) + "\n")


main()
