"""Writes small data sets in the exact formats of the published ones, and expected.json: what is in them.

    python make_datasets.py      # NumPy and torch; writes beside itself

CIFAR's archives were pickled by Python 2, which no longer exists: its instructions are written by hand
here, and read back by Python 3 to see that they say what they should.
"""

import hashlib
import io
import json
import pathlib
import pickle
import struct

import numpy as np
import torch

HERE = pathlib.Path(__file__).parent
PIXELS = 3072


def images(first, count):
    """Images that differ in every sample, row, column and channel: u8 [count, 3072]."""
    sample = np.arange(first, first + count)[:, None]
    pixel = np.arange(PIXELS)[None, :]
    return ((sample * 41 + pixel * 7 + pixel // 32 * 3 + pixel // 1024 * 50) % 256).astype(np.uint8)


class Python2Pickle:
    """What cPickle of Python 2 writes with protocol 2 (which CIFAR's archives are)."""

    def __init__(self):
        self.out = io.BytesIO()
        self.memo = 0
        self.out.write(b"\x80\x02")

    def put(self):
        self.out.write(b"q" + bytes([self.memo]) if self.memo < 256 else b"r" + struct.pack("<I", self.memo))
        self.memo += 1

    def string(self, text):
        if len(text) < 256:
            self.out.write(b"U" + bytes([len(text)]) + text)
        else:
            self.out.write(b"T" + struct.pack("<i", len(text)) + text)
        self.put()

    def integer(self, number):
        if 0 <= number < 256:
            self.out.write(b"K" + bytes([number]))
        elif 0 <= number < 65536:
            self.out.write(b"M" + struct.pack("<H", number))
        else:
            self.out.write(b"J" + struct.pack("<i", number))

    def called(self, name, arguments):
        self.out.write(b"c" + name)
        self.put()
        arguments()
        self.out.write(b"R")
        self.put()

    def bytes_array(self, array):
        def reconstruct():
            self.out.write(b"cnumpy\nndarray\n")
            self.put()
            self.out.write(b"K\x00\x85")
            self.put()
            self.string(b"b")
            self.out.write(b"\x87")
            self.put()

        def dtype():
            self.string(b"u1")
            self.out.write(b"K\x00K\x01\x87")
            self.put()

        self.called(b"numpy.core.multiarray\n_reconstruct\n", reconstruct)
        self.out.write(b"(K\x01")
        for length in array.shape:
            self.integer(length)
        self.out.write(b"\x86")
        self.put()
        self.called(b"numpy\ndtype\n", dtype)
        self.out.write(b"(K\x03")
        self.string(b"|")
        self.out.write(b"NNN")
        self.integer(-1)
        self.integer(-1)
        self.out.write(b"K\x00t")
        self.put()
        self.out.write(b"b\x89")
        self.string(array.tobytes())
        self.out.write(b"t")
        self.put()
        self.out.write(b"b")

    def list(self, items, write):
        self.out.write(b"]")
        self.put()
        self.out.write(b"(")
        for item in items:
            write(item)
        self.out.write(b"e")

    def value(self, value):
        if isinstance(value, bytes):
            self.string(value)
        elif isinstance(value, int):
            self.integer(value)
        elif isinstance(value, list):
            self.list(value, self.value)
        else:
            self.bytes_array(value)

    def dictionary(self, entries):
        self.out.write(b"}")
        self.put()
        self.out.write(b"(")
        for key, value in entries.items():
            self.value(key)
            self.value(value)
        self.out.write(b"u.")
        data = self.out.getvalue()
        read = pickle.loads(data, encoding="bytes")
        for key, value in entries.items():
            assert np.array_equal(read[key], value), key
        return data


def write(path, data):
    path = HERE / path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def python2(path, entries):
    write(path, Python2Pickle().dictionary(entries))


def told(pixels, labels):
    return {"sha256": hashlib.sha256(pixels.tobytes()).hexdigest(), "labels": [int(label) for label in labels]}


def cifar10():
    files = {}
    for number, (name, count) in enumerate({"data_batch_1": 2, "data_batch_2": 1, "test_batch": 1}.items()):
        pixels = images(10 * number, count)
        labels = [(number * 3 + index * 5 + 1) % 10 for index in range(count)]
        filenames = [b"image_%d.png" % index for index in range(count)]
        entries = {b"batch_label": b"batch of " + name.encode(), b"labels": labels, b"data": pixels,
                   b"filenames": filenames}
        python2(f"cifar10/{name}", entries)
        files[name] = told(pixels, labels)
    names = [b"airplane", b"automobile", b"bird", b"cat", b"deer", b"dog", b"frog", b"horse", b"ship", b"truck"]
    python2("cifar10/batches.meta", {b"num_cases_per_batch": 10000, b"label_names": names, b"num_vis": 3072})
    return files


def cifar100():
    files = {}
    for number, (name, count) in enumerate({"train": 2, "test": 1}.items()):
        pixels = images(50 + 10 * number, count)
        fine = [(number * 30 + index * 99) % 100 for index in range(count)]
        entries = {b"filenames": [b"a.png"] * count, b"batch_label": b"one", b"fine_labels": fine,
                   b"coarse_labels": [19] * count, b"data": pixels}
        python2(f"cifar100/{name}", entries)
        files[name] = told(pixels, fine)
    names = [b"fine %d" % label for label in range(100)]
    python2("cifar100/meta", {b"fine_label_names": names, b"coarse_label_names": [b"coarse"] * 20})
    return files


def imagenet32():
    files = {}
    # The published files also hold the mean image, which nobody reads here: shortened to three numbers.
    mean = np.array([0.25, 0.5, 0.75])
    for number, (name, count) in enumerate({"train_data_batch_1": 2, "train_data_batch_2": 1, "val_data": 1}.items()):
        pixels = images(100 + 10 * number, count)
        labels = [[1, 1000], [500], [7]][number]
        entries = {"data": pixels, "labels": labels, "mean": mean}
        if number == 0:
            python2(f"imagenet32/{name}", {b"data": pixels, b"labels": labels})
        else:
            write(f"imagenet32/{name}", pickle.dumps(entries, protocol=2 if number == 1 else 4))
        archive = io.BytesIO()
        (np.savez if number == 0 else np.savez_compressed)(archive, **entries)
        write(f"imagenet32-npz/{name}.npz", archive.getvalue())
        files[name] = told(pixels, [label - 1 for label in labels])
    return files


def human():
    """CIFAR-10N and -100N for 20 images with the labels 0 to 9 twice, and 0 to 19."""
    clean = np.arange(20) % 10
    of_10 = {"clean_label": clean}
    for step, key in enumerate(["aggre_label", "worse_label", "random_label1", "random_label2", "random_label3"]):
        of_10[key] = np.where(np.arange(20) % (step + 2) == 0, (clean + step + 1) % 10, clean)
    of_100 = {"clean_label": np.arange(20), "noisy_label": (np.arange(20) * 7 + 3) % 100}
    for name, labels in {"CIFAR-10_human": of_10, "CIFAR-100_human": of_100}.items():
        torch.save(labels, HERE / f"{name}.pt")
    return {name: labels.tolist() for name, labels in {**of_10, "noisy_label": of_100["noisy_label"]}.items()}


expected = {"cifar10": cifar10(), "cifar100": cifar100(), "imagenet32": imagenet32(), "human": human()}
(HERE / "expected.json").write_text(json.dumps(expected) + "\n")
