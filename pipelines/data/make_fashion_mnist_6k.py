#!/usr/bin/env python3
"""Makes fashion-mnist-6k.zip: the first 5,000 training and the first 1,000 test images of Fashion-MNIST.

The zip holds the four idx files under their usual names, uncompressed but for the zip itself. The same
input gives the same files, dates and order; the compressed bytes also depend on the zlib that Python
was built with, so the checksum in quickstart.toml belongs to the committed zip.

The input is the folder of the four .gz files: by default the one of Debian's package
dataset-fashion-mnist. Needs nothing but Python's standard library.
"""

import argparse
import gzip
import struct
import zipfile
from pathlib import Path

PARTS = {"train": 5000, "t10k": 1000}
# The earliest date that a zip can hold: the files have no date of their own.
DATE = (1980, 1, 1, 0, 0, 0)


def first_items(path: Path, dimensions: int, count: int) -> bytes:
    """The idx file at `path` (gzipped, unsigned bytes), cut to its first `count` items."""
    data = gzip.decompress(path.read_bytes())
    magic, total, *shape = struct.unpack_from(f">{1 + dimensions}I", data)
    if magic != 0x0800 + dimensions or total < count:
        raise SystemExit(f"{path}: not an idx file of at least {count} items with {dimensions} dimensions")
    item_bytes = 1
    for length in shape:
        item_bytes *= length
    header_bytes = 4 * (1 + dimensions)
    header = struct.pack(f">{1 + dimensions}I", magic, count, *shape)
    items = data[header_bytes : header_bytes + count * item_bytes]
    if len(items) != count * item_bytes:
        raise SystemExit(f"{path}: ends in the middle of an item")
    return header + items


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=here / "fashion-mnist-6k.zip")
    arguments = parser.parse_args()

    with zipfile.ZipFile(arguments.output, "w") as archive:
        for part, count in PARTS.items():
            for name, dimensions in ((f"{part}-images-idx3-ubyte", 3), (f"{part}-labels-idx1-ubyte", 1)):
                entry = zipfile.ZipInfo(name, DATE)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = 0o644 << 16
                content = first_items(arguments.source / f"{name}.gz", dimensions, count)
                archive.writestr(entry, content, compresslevel=9)


if __name__ == "__main__":
    main()
