"""Writes CIFAR-10's files as Python 3 pickles them, bytes as keys, with each protocol from 0 to 5.

    python make_protocols.py     # NumPy; writes protocols/ beside itself

One image and the class names for each protocol. Python 3 writes bytes with protocol 2 and below as calls
of _codecs.encode.
"""

import pathlib
import pickle

import numpy as np

HERE = pathlib.Path(__file__).parent / "protocols"
NAMES = ["airplane", "automobile", "bird", "cat", "Dammhirsch (Rotwild: Rothirschkühe)", "dog", "frog", "horse", "ship", "truck"]

for protocol in range(6):
    folder = HERE / str(protocol)
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((1, 3072), 200 + protocol, np.uint8)
    batch = {b"data": pixels, b"labels": [protocol], b"batch_label": b""}
    (folder / "batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    names = {b"label_names": [name.encode() for name in NAMES]}
    (folder / "batches.meta").write_bytes(pickle.dumps(names, protocol=protocol))
