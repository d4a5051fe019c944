#!/usr/bin/env python3
"""What PyTorch's seeded CPU generator gives for randperm: torch_randperm.json."""

import hashlib
import json
from pathlib import Path

import torch

CASES = [(seed, length) for seed in (0, 1, 42, 220, 224, 2**32 - 1, 2**32 + 220) for length in (1, 2, 10, 5000)]
CASES += [(seed, length) for seed in (220, 221, 222, 223, 224) for length in (50_000, 60_000)]


def case(seed: int, length: int) -> dict:
    permutation = torch.randperm(length, generator=torch.Generator().manual_seed(seed)).numpy()
    return {
        "seed": seed,
        "length": length,
        "first": permutation[:12].tolist(),
        "sha256": hashlib.sha256(permutation.astype("<i8").tobytes()).hexdigest(),
    }


def main() -> None:
    lines = ",\n".join(json.dumps(case(seed, length)) for seed, length in CASES)
    Path(__file__).with_suffix(".json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
