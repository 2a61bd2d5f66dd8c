"""Preparing a TFDS data set without TensorFlow, once, however many processes ask for it."""

import builtins
import contextlib
import fcntl
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np

from jaxdiff.data import picture

_ABANDONED = 3600  # seconds after which a half-written folder is taken for that of a killed process


def prepared(name: str, data_dir: str | None) -> Any:
    """Returns a TFDS builder whose data are on disk as ArrayRecord; prepares them if they are not.

    TFDS writes into a folder of another name and renames it at the end, so a killed preparation leaves nothing that
    looks finished. A lock lets one process prepare while others wait for it; it goes with its process.

    Raises:
      ValueError: if TFDS cannot open the data set, or cannot prepare it; in TFDS's words.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    except Exception as error:  # of the builder's own code, which may want TensorFlow or a file of ours
        raise ValueError(f"cannot open {name!r} for reading at random: {_one_line(error)}") from error
    if builder.data_path.exists():
        return builder
    with _lock(builder.data_path):
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
        if not builder.data_path.exists():
            try:
                with _without_tensorflow(builder):
                    builder.download_and_prepare()
            except Exception as error:  # a download refused, a package missing, an archive to be fetched by hand
                raise ValueError(f"cannot prepare {name!r}: {_one_line(error)}") from error
    return builder


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


@contextlib.contextmanager
def _lock(folder: Any) -> Iterator[None]:
    if "://" in os.fspath(folder):  # a bucket: nothing to lock there
        yield
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f".{folder.name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for left in folder.parent.glob(f"incomplete.*_{folder.name}"):
            if time.time() - os.stat(left).st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def _without_tensorflow(builder: Any) -> Iterator[None]:
    """Lets builders made for TensorFlow run without it.

    TFDS needs it to encode pictures given as arrays, and many builders (cifar10 is one) open their files with
    `tf.io.gfile`. Arrays are encoded here instead, and the builder's module gets Python's own file functions.
    """
    import tensorflow_datasets as tfds

    for feature in builder.info.features.values():
        if isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8:
            feature.encode_example = lambda value, encode=feature.encode_example: encode(
                picture.encode(value) if isinstance(value, np.ndarray) else value
            )
    module: Any = sys.modules[type(builder).__module__]
    if not hasattr(module, "tf") or importlib.util.find_spec("tensorflow"):
        yield
        return
    theirs = module.tf
    gfile = SimpleNamespace(GFile=builtins.open, exists=os.path.exists, listdir=os.listdir, isdir=os.path.isdir)
    module.tf = SimpleNamespace(io=SimpleNamespace(gfile=gfile))
    try:
        yield
    finally:
        module.tf = theirs
