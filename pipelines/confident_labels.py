"""Labels of a stage of kind purify-labels for the samples that it is surest of; all others keep the label that they were given.

    confident_labels.py SHARE

SHARE, from 0 to 1, is how many of the samples that train take the new label. Writes labels.safetensors and noise.json, as purify-labels does.
Needs nothing but Python.
"""

import json
import os
import struct
import sys
from pathlib import Path


def read(path):
    """The tensors of a safetensors file, each as a list of numbers."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    letters = {"I64": "q", "F32": "f"}

    def numbers(tensor):
        start, end = (8 + size + offset for offset in tensor["data_offsets"])
        letter = letters[tensor["dtype"]]
        return list(struct.unpack(f"<{(end - start) // struct.calcsize(letter)}{letter}", content[start:end]))

    return {name: numbers(tensor) for name, tensor in header.items() if name != "__metadata__"}


def write(path, tensors):
    """Writes lists of integers as a safetensors file."""
    header, content = {"__metadata__": {"type": "labels"}}, b""
    for name, values in tensors.items():
        packed = struct.pack(f"<{len(values)}q", *values)
        offsets = [len(content), len(content) + len(packed)]
        header[name] = {"dtype": "I64", "shape": [len(values)], "data_offsets": offsets}
        content += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


def main():
    share = float(sys.argv[1])
    purified, output = Path(os.environ["PIPELINE_INPUT_PURIFIED"]), Path(os.environ["PIPELINE_OUTPUT"])
    tensors = read(purified / "labels.safetensors")
    clean, given, confidence = tensors["clean"], tensors["given"], tensors["confidence"]
    # The confidence of samples that are held out is 1; their labels are the data set's.
    train = [sample for sample, sure in enumerate(confidence) if sure < 1]
    surest = sorted(train, key=lambda sample: -confidence[sample])[: round(share * len(train))]
    labels = list(tensors["labels"])
    for sample in set(train) - set(surest):
        labels[sample] = given[sample]
    write(output / "labels.safetensors", {"labels": labels, "clean": clean})

    noise = json.loads((purified / "noise.json").read_text())
    counts = [[0] * len(noise["classes"]) for _ in noise["classes"]]
    for sample in train:
        counts[clean[sample]][labels[sample]] += 1
    wrong = sum(labels[sample] != clean[sample] for sample in train)
    noise["noise"] = f"purified for a share of {share:g}"
    noise["corrupted"], noise["realised-rate"] = wrong, wrong / len(train)
    noise["realised-matrix"] = [[count / max(sum(row), 1) for count in row] for row in counts]
    (output / "noise.json").write_text(json.dumps(noise))
    print(f"{1 - wrong / len(train):.4f} of the labels are right")


main()
