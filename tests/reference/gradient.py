#!/usr/bin/env python3
"""Makes gradient.jpg: a JPEG whose bytes do not change with an encoder of ours."""

from pathlib import Path

from PIL import Image


def main() -> None:
    image = Image.new("RGB", (50, 70))
    image.putdata([(x * 5, y * 3, x * y % 256) for y in range(70) for x in range(50)])
    image.save(Path(__file__).with_suffix(".jpg"), quality=85)


if __name__ == "__main__":
    main()
