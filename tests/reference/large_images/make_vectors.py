"""Images of several sizes, and what torchvision makes of them.

    python3 tests/reference/large_images/make_vectors.py     (needs torch, torchvision, numpy, pillow)

Writes `vectors.json` and the images that it is about beside itself: drawings of our own, by formulas.
Frames are of lossless PNG images, and resampled as float tensors; JPEG images stand for decoding alone.
"""

import json
import pathlib

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

HERE = pathlib.Path(__file__).parent


def drawing(height, width, stream):
    """Waves and an ellipse in colours, u8 [H,W,3]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    waves = [np.sin(x / (3 + stream + c) + c) * np.cos(y / (5 + c) + stream) for c in range(3)]
    image = 127.5 + 90 * np.stack(waves, axis=-1)
    inside = ((y / height - 0.5) ** 2 + (x / width - 0.4) ** 2) < 0.06
    image[inside] = [230, 40 + 10 * stream, 90]
    return image.round().clip(0, 255).astype(np.uint8)


def tensor(image):
    return torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1).float() / 255


def summary(image):
    """Every 37th value of float [3,S,S], the last one, and the mean of each channel."""
    values = [*image.flatten()[::37].tolist(), float(image[-1, -1, -1])]
    return {"values": rounded(values), "means": rounded(image.mean((1, 2)).tolist())}


def rounded(values):
    return [round(value, 6) for value in values]


def resize(image, size, mode):
    return F.resize(image, size, interpolation=mode, antialias=True).clamp(0, 1)


def centre_then_resize(image, side):
    """SimCLR: the middle 0.875 of the height and of the width, each cut to whole pixels, bicubic to a square."""
    crop = [int(0.875 * length) for length in image.shape[-2:]]
    return resize(F.center_crop(image, crop), [side, side], InterpolationMode.BICUBIC)


def resize_then_centre(image, side, mode):
    """The shorter side to 256/224 of the input: for ImageNet's models bilinear (the default), for DINOv2's bicubic."""
    shorter = int(np.floor(side * 256 / 224 + 0.5))
    return F.center_crop(resize(image, shorter, mode), side)


def frames():
    cases = []
    for name, side in [("wide.png", 32), ("wide.png", 56), ("tall.png", 28), ("grey.png", 40), ("tall.png", 64)]:
        image = tensor(Image.open(HERE / name))
        height, width = image.shape[-2:]
        shorter = int(np.floor(side * 256 / 224 + 0.5))
        whole = resize(image, shorter, InterpolationMode.BILINEAR)
        top, left = whole.shape[-2] - side, (whole.shape[-1] - side) // 3
        box = [height // 5, width // 6, height // 2, 2 * width // 3]
        resized_crop = F.resized_crop(
            image, *box, [side, side], interpolation=InterpolationMode.BICUBIC, antialias=True
        ).clamp(0, 1)
        cases.append(
            {
                "image": name,
                "shape": [height, width],
                "side": side,
                "crop_then_resize": summary(centre_then_resize(image, side)),
                "resize_then_crop": summary(
                    resize_then_centre(image, side, InterpolationMode.BILINEAR)
                ),
                "resize_then_crop_bicubic": summary(
                    resize_then_centre(image, side, InterpolationMode.BICUBIC)
                ),
                "random_crop": {
                    "offset": [top, left],
                    "flipped": summary(F.hflip(F.crop(whole, top, left, side, side))),
                },
                "resized_crop": {"box": box, "flipped": summary(F.hflip(resized_crop))},
            }
        )
    return cases


def blurs():
    cases = []
    image = tensor(Image.open(HERE / "wide.png"))[:, :40, :30]
    for radius, deviation in [(3, 0.1), (3, 1.3), (11, 2.0)]:
        blurred = F.gaussian_blur(image, 2 * radius + 1, deviation)
        cases.append(
            {"radius": radius, "deviation": deviation, "values": rounded(blurred.flatten()[::37].tolist())}
        )
    return cases


def decoded():
    """Means and every 97th pixel of each file, as Pillow converts it to RGB (its EXIF rotation applied)."""
    cases = []
    for path in sorted(HERE.glob("*.jpg")) + sorted(HERE.glob("*.png")):
        image = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB")).astype(int)
        height, width, _ = image.shape
        cases.append(
            {
                "image": path.name,
                "shape": [height, width],
                "pixels": image.reshape(-1, 3)[::97].tolist(),
                "means": rounded(image.mean((0, 1)).tolist()),
            }
        )
    return cases


def write_images():
    wide, tall = Image.fromarray(drawing(45, 70, 1)), Image.fromarray(drawing(83, 50, 2))
    wide.save(HERE / "wide.png", optimize=True)
    tall.save(HERE / "tall.png", optimize=True)
    tall.convert("L").resize((41, 41)).save(HERE / "grey.png", optimize=True)
    wide.save(HERE / "colour.jpg", quality=90)
    wide.convert("L").save(HERE / "grey.jpg", quality=90)
    tall.save(HERE / "progressive.jpg", quality=85, progressive=True)
    tall.convert("CMYK").save(HERE / "cmyk.jpg", quality=90)
    turned = Image.Exif()
    turned[0x0112] = 6
    wide.save(HERE / "turned.jpg", quality=90, exif=turned)
    alpha = wide.convert("RGBA")
    alpha.putalpha(100)
    alpha.save(HERE / "alpha.png", optimize=True)


def main():
    write_images()
    vectors = {"frames": frames(), "blurs": blurs(), "decoded": decoded()}
    (HERE / "vectors.json").write_text(json.dumps(vectors) + "\n")


main()
