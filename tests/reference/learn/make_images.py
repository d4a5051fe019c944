"""Views and light augmentations by torchvision 0.26, with every draw given.

    python3 tests/reference/learn/make_images.py     (needs torchvision; writes images.json beside itself)

Images are bytes made by the formula `fill`. The steps of a view are those of the reference, in its order: crop and resize
(bicubic, antialiased), flip, colour jitter, grey, clamped to [0, 1].
"""

import json
import pathlib

import torch
import torch.nn.functional as F
from networks import fill
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as T

torch.set_num_threads(1)
ADJUST = {
    "brightness": T.adjust_brightness,
    "contrast": T.adjust_contrast,
    "saturation": T.adjust_saturation,
    "hue": T.adjust_hue,
}


def image(channels, height, width, stream):
    """Bytes u8 [C,H,W]: smooth and noisy parts, so that colours are neither all grey nor all wild."""
    noise = fill((channels, height, width), stream, 0, 1)
    slope = torch.linspace(0, 1, width).expand(channels, height, width)
    return ((0.6 * noise + 0.4 * slope) * 255.999).floor().to(torch.uint8)


def view(case):
    bytes_in = image(case["channels"], case["height"], case["width"], case["stream"])
    pixels = bytes_in.float() / 255
    top, left, height, width = case["crop"]
    size = [case["height"], case["width"]]
    out = T.resized_crop(
        pixels, top, left, height, width, size, InterpolationMode.BICUBIC, antialias=True
    )
    # torchvision's own steps expect values within [0, 1]; the cubic kernel leaves it.
    out = out.clamp(0, 1)
    if case["flipped"]:
        out = T.hflip(out)
    for name, amount in case["jitter"]:
        out = ADJUST[name](out, amount)
    if case["grey"]:
        out = T.rgb_to_grayscale(out, num_output_channels=case["channels"])
    return out.clamp(0, 1)


def views():
    small = {"channels": 3, "height": 12, "width": 12}
    wide = {"channels": 3, "height": 9, "width": 14}
    plain = {"jitter": [], "grey": False, "flipped": False}
    in_order = [["brightness", 1.3], ["contrast", 0.7], ["saturation", 1.4], ["hue", 0.1]]
    reverse = [["hue", -0.1], ["saturation", 0.6], ["contrast", 1.4], ["brightness", 0.6]]
    mixed = [["contrast", 1.25], ["hue", 0.05], ["brightness", 1.4], ["saturation", 0.8]]
    cases = [
        small | plain | {"crop": [0, 0, 12, 12]},
        small | plain | {"crop": [2, 3, 4, 5]},
        small | plain | {"crop": [5, 1, 7, 9], "flipped": True},
        wide | plain | {"crop": [0, 4, 9, 10], "flipped": True},
        wide | plain | {"crop": [1, 2, 3, 2], "grey": True},
        small | plain | {"crop": [1, 0, 9, 8], "jitter": in_order},
        small | plain | {"crop": [0, 2, 6, 8], "jitter": reverse, "flipped": True},
        wide | plain | {"crop": [2, 0, 6, 7], "jitter": mixed, "grey": True},
        small | plain | {"crop": [3, 3, 8, 8], "jitter": mixed},
        small | plain | {"crop": [4, 4, 1, 1], "jitter": reverse},
        {"channels": 1, "height": 10, "width": 10}
        | plain
        | {"crop": [1, 2, 6, 5], "jitter": [["contrast", 1.3], ["brightness", 0.8]], "flipped": True},
    ]
    for stream, case in enumerate(cases):
        case["stream"] = 90 + stream
        case["pixels"] = [round(value, 7) for value in view(case).flatten().tolist()]
    return cases


def single_steps():
    """Every step of the jitter alone, for several amounts, on the same image."""
    pixels = image(3, 6, 6, 80).float() / 255
    amounts = {
        "brightness": [0.6, 1.0, 1.4],
        "contrast": [0.6, 1.4],
        "saturation": [0.6, 1.4],
        "hue": [-0.5, -0.1, 0.03, 0.1, 0.5],
    }
    made = []
    for name, values in amounts.items():
        for amount in values:
            out = ADJUST[name](pixels, amount).flatten().tolist()
            made.append({"step": name, "amount": amount, "pixels": [round(v, 7) for v in out]})
    return made


def crops_after_padding():
    """Every way in which a padded image (4 pixels, reflected) is cropped back and flipped, as bytes' sums.

    The rows are (down, right, flipped, sum over i of pixel_i * (i + 1)): a fingerprint that holds in integers.
    """
    pixels = image(3, 8, 7, 81)
    padded = F.pad(pixels.float(), (4, 4, 4, 4), mode="reflect").long()
    made = []
    for down in range(9):
        for right in range(9):
            for flipped in [False, True]:
                out = padded[:, down : down + 8, right : right + 7]
                out = out.flip(2) if flipped else out
                weights = torch.arange(1, out.numel() + 1)
                made.append([down, right, int(flipped), int((out.flatten() * weights).sum())])
    return made


vectors = {
    "views": views(),
    "steps": single_steps(),
    "crops_after_padding": crops_after_padding(),
}
path = pathlib.Path(__file__).with_name("images.json")
path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")) + "\n")
