"""Takes 250 training images of an IDX data set, drawn by a seed, for its test images.

    python3 judges_apart.py SOURCE OUTPUT SEED

The folder OUTPUT becomes a data set whose "test" part judges tries of methods that learn from the samples held out, so that neither
these nor the test set have to.
"""

import pathlib
import random
import sys

JUDGES = 250


def main(source: pathlib.Path, output: pathlib.Path, seed: int) -> None:
    for name, header, size in [("images-idx3-ubyte", 16, 28 * 28), ("labels-idx1-ubyte", 8, 1)]:
        data = (source / f"train-{name}").read_bytes()
        rows = [data[at : at + size] for at in range(header, len(data), size)]
        judges = set(random.Random(seed).sample(range(len(rows)), JUDGES))
        for part, judged in [("train", False), ("t10k", True)]:
            chosen = [row for index, row in enumerate(rows) if (index in judges) == judged]
            count = len(chosen).to_bytes(4, "big")  # after the magic number
            (output / f"{part}-{name}").write_bytes(data[:4] + count + data[8:header] + b"".join(chosen))


main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3]))
