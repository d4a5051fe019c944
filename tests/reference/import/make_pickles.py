"""Writes pickles.json: values as CPython and NumPy pickle them, in every protocol, and what they hold.

    python3 tests/reference/import/make_pickles.py

Needs numpy (1.x or 2.x).
"""

import argparse
import collections
import json
import pathlib
import pickle

import numpy as np


def described(value):
    """The value as JSON, with the types that JSON lacks named."""
    if isinstance(value, np.ndarray):
        return {"array": value.ravel().tolist(), "shape": list(value.shape)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dict):
        return {"dict": [[described(key), described(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [described(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"set": [described(item) for item in sorted(value)]}
    if isinstance(value, list):
        return [described(item) for item in value]
    if isinstance(value, (argparse.Namespace, pathlib.PurePath)):
        name = type(value).__name__
        module = "argparse" if name == "Namespace" else "pathlib"
        return {"object": f"{module}.{name}"}
    return value


shared = ["shared"]
VALUES = {
    "plain": [None, True, False, 0, 1, -1, 255, 256, 65535, 65536, -(2**31), 2**31, 2**62, -(2**63)],
    "floats": [0.0, -0.5, 1e300, 0.1],
    "text": ["", "a", "two\nlines", "back\\slash 'quoted' \\u0041", "é ß 中 😀", "x" * 300],
    "bytes": [b"", b"a", bytes(range(256)), b"x" * 300, bytearray(b"array")],
    "containers": [[], (), {}, (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {"a": [1], 2: ("b",)}],
    "sets": [{1, 2, 3}, frozenset([4, 5]), set()],
    "shared": [shared, shared, (shared, shared)],
    "more than a batch": [7] * 1001,
    "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
    "namespace": argparse.Namespace(path=pathlib.PurePosixPath("/a/b"), rate=0.5),
    "scalars": [np.float64(0.25), np.float32(0.5), np.int64(-7), np.uint8(200), np.int16(-300)],
    "arrays": [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4)),
        np.array([1.5, -2.25], dtype=">f8"),
        np.array([[-1, 2], [300, -400]], dtype=">i2"),
        np.array([0.5, 1.5], dtype=np.float32),
        np.zeros((0, 3), dtype=np.int32),
        np.array(7, dtype=np.uint16),
        np.arange(12, dtype=np.uint32).reshape(3, 4)[:, ::2],
    ],
}

# As Python 2 wrote them: its strings are bytes here. (Python 3 cannot write these itself.)
BY_HAND = {
    "python 2, protocol 0": (
        b"(dp0\nS'batch_label'\np1\nS'it\\'s \\x01\\n\\\\'\np2\nsS'labels'\np3\n(lp4\nI6\naI01\naL9L\nas.",
        {b"batch_label": b"it's \x01\n\\", b"labels": [6, True, 9]},
    ),
    "python 2, protocol 2": (
        b"\x80\x02}q\x01(U\x04dataq\x02T\x03\x00\x00\x00\xff\x00aU\x06labelsq\x03]q\x04(K\x06K\x09eu.",
        {b"data": b"\xff\x00a", b"labels": [6, 9]},
    ),
    "python 2, an ordered dictionary": (
        b"\x80\x02ccollections\nOrderedDict\n]](U\x01aK\x01ea\x85R.",
        collections.OrderedDict([(b"a", 1)]),
    ),
}


def main():
    cases = []
    for name, value in VALUES.items():
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            data = pickle.dumps(value, protocol=protocol)
            cases.append({"name": f"{name}, protocol {protocol}", "pickle": data.hex(), "holds": described(value)})
    for name, (data, value) in BY_HAND.items():
        cases.append({"name": name, "pickle": data.hex(), "holds": described(value)})
    text = "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
    pathlib.Path(__file__).with_name("pickles.json").write_text(text)


main()
