"""Writes vectors.json: means, standard deviations and 95 % t-intervals by NumPy and SciPy."""

import json
from pathlib import Path

import numpy as np
from scipy import stats


def summary(values):
    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    low, high = (None, None)
    std = None
    if n > 1:
        std = float(values.std(ddof=1))
        half = float(stats.t.ppf(0.975, n - 1) * stats.sem(values))
        low, high = float(values.mean()) - half, float(values.mean()) + half
        if std > 0:
            by_scipy = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
            assert np.allclose([low, high], by_scipy, rtol=1e-13)
    return {"n": n, "mean": float(values.mean()), "std": std, "low": low, "high": high,
            "min": float(values.min()), "max": float(values.max())}


draws = np.random.default_rng(220)
samples = [
    [0.25],
    [0.5, 0.5],
    [0.843, 0.851],
    [0.843, 0.851, 0.8395, 0.8472, 0.861],
    [1e9 + 0.1, 1e9 + 0.2, 1e9 + 0.4],
    [-1e-9, 2e-9, 3.5e-9, 0.0],
    draws.normal(0.8, 0.02, 10).tolist(),
    draws.uniform(-5, 5, 100).tolist(),
    draws.lognormal(0, 1, 1001).tolist(),
]
pairs = [(draws.normal(0.7, 0.02, n), draws.normal(0.8, 0.02, n)) for n in (2, 3, 5, 12)]
degrees = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 29, 30, 50, 99, 100, 1000, 99_999, 100_000, 1_000_000]

vectors = {
    "t_quantiles": [[df, float(stats.t.ppf(0.975, df))] for df in degrees],
    "samples": [{"values": values, "summary": summary(values)} for values in samples],
    "pairs": [],
}
for baseline, other in pairs:
    # The interval of a paired t-test, by its own function.
    interval = stats.ttest_rel(other, baseline).confidence_interval(0.95)
    expected = summary(other - baseline)
    assert np.allclose([expected["low"], expected["high"]], interval, rtol=1e-12)
    vectors["pairs"].append({"baseline": baseline.tolist(), "other": other.tolist(), "summary": expected})

path = Path(__file__).with_name("vectors.json")
path.write_text(json.dumps(vectors, indent=1) + "\n")
