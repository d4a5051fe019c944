"""Takes training images of an IDX data set, drawn by a seed, for its test images.

    python3 judges_apart.py SOURCE OUTPUT SEED [--labels SOURCE] [--judges 250]

The folder OUTPUT becomes a data set whose "test" part judges tries of methods that learn from the samples held out, so that neither
these nor the test set have to. SOURCE has the images and labels, plain or compressed (.gz); with `--labels`, the labels are there.
"""

import argparse
import gzip
import pathlib
import random


def content(source: pathlib.Path, name: str) -> bytes:
    """What a file of the data set holds."""
    compressed = source / f"{name}.gz"
    return gzip.decompress(compressed.read_bytes()) if compressed.exists() else (source / name).read_bytes()


def main(images: pathlib.Path, labels: pathlib.Path, output: pathlib.Path, seed: int, count: int) -> None:
    for source, name, header, size in [(images, "images-idx3-ubyte", 16, 28 * 28), (labels, "labels-idx1-ubyte", 8, 1)]:
        data = content(source, f"train-{name}")
        rows = [data[at : at + size] for at in range(header, len(data), size)]
        judges = set(random.Random(seed).sample(range(len(rows)), count))
        for part, judged in [("train", False), ("t10k", True)]:
            chosen = [row for index, row in enumerate(rows) if (index in judges) == judged]
            count_of_part = len(chosen).to_bytes(4, "big")  # after the magic number
            (output / f"{part}-{name}").write_bytes(data[:4] + count_of_part + data[8:header] + b"".join(chosen))


parser = argparse.ArgumentParser()
parser.add_argument("source", type=pathlib.Path)
parser.add_argument("output", type=pathlib.Path)
parser.add_argument("seed", type=int)
parser.add_argument("--labels", type=pathlib.Path)
parser.add_argument("--judges", type=int, default=250)
given = parser.parse_args()
main(given.source, given.labels or given.source, given.output, given.seed, given.judges)
