"""Features of timm's vision transformers, every third, with weights and images made by the formula `fill`.

    python3 tests/reference/learn/make_vit.py     (needs timm 1.0.31; writes vit.json beside itself)

timm interpolates the position embeddings where images have another size than they were learned for. DINOv2's checkpoints
have the names of timm's network.
"""

import json
import pathlib

import timm
import torch
from networks import fill, fill_network

torch.set_num_threads(1)


def features(name, height, width):
    network = timm.create_model(name, num_classes=0, dynamic_img_size=True).eval()
    fill_network(network)
    images = fill((2, 3, height, width), 1000, -1.0, 1.0)
    with torch.no_grad():
        single = network(images)
        exact = network.double()(images.double())
    return {
        "image": [height, width],
        "features": exact[:, ::3].flatten().tolist(),
        "error": ((single - exact).abs().max() / exact.abs().max()).item(),
    }


vectors = {
    "vit_tiny_patch16_224": [
        features("vit_tiny_patch16_224", *size) for size in [(224, 224), (64, 96)]
    ],
    "vit_small_patch14_dinov2": [
        features("vit_small_patch14_dinov2", *size) for size in [(224, 224), (56, 56)]
    ],
}
path = pathlib.Path(__file__).with_name("vit.json")
path.write_text(json.dumps(vectors, indent=None, separators=(",", ":")) + "\n")
