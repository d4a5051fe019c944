"""Writes JPEG files of every kind that Pillow writes, for tests of what is missing in them.

    python make_files.py      # Pillow and NumPy; writes beside itself
"""

import pathlib

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
rows, columns = np.mgrid[0:88, 0:116]
noise = np.random.default_rng(0).normal(0, 25, (88, 116, 3))
gradient = np.stack([columns * 2, rows * 2, 250 - columns * 2], -1)
photo = Image.fromarray((gradient + noise).clip(0, 255).astype(np.uint8))
grey, cmyk = photo.convert("L"), photo.convert("CMYK")

for name, image, options in [
    ("baseline", photo, {}),
    ("full", photo, {"quality": 95, "subsampling": 0}),
    ("wide", photo, {"subsampling": 1}),
    ("optimized", photo, {"optimize": True}),
    ("grey", grey, {}),
    ("cmyk", cmyk, {}),
    ("restarts", photo, {"restart_marker_blocks": 5}),
    ("progressive", photo, {"progressive": True}),
    ("progressive-grey", grey, {"progressive": True, "quality": 90}),
    ("progressive-restarts", photo, {"progressive": True, "restart_marker_rows": 1}),
]:
    image.save(HERE / f"{name}.jpg", **options)
