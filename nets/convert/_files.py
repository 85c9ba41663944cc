"""Arrays by name in a file."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, by name: what `from_torch` takes.

    Args:
      path: of the file.
    Returns:
      NumPy arrays by name, of the dtypes that they have there: those of 64 bits, and bfloat16, included.
    Raises:
      ImportError: if the extra `convert` is not installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors({"w": jnp.arange(3)}, f"{folder}/net.safetensors")
    ...     load_safetensors(f"{folder}/net.safetensors")["w"].tolist()
    [0, 1, 2]
    """
    return dict(_safetensors().load_file(os.fspath(path)))


def save_safetensors(arrays: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Writes arrays by name into a safetensors file: what `to_torch` returns.

    Args:
      arrays: by name, of JAX or NumPy; each is written with the dtype that it has.
      path: of the file; it is replaced only when all is written.
    Returns:
      Nothing.
    Raises:
      ImportError: if the extra `convert` is not installed.
      OSError: if the file cannot be written.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_safetensors({"w": jnp.ones(3)}, f"{folder}/net.safetensors")
    ...     [file.name for file in pathlib.Path(folder).iterdir()]
    ['net.safetensors']
    """
    unfinished = f"{os.fspath(path)}.unfinished"
    # safetensors writes the memory of an array as it lies.
    contiguous = {name: np.array(array, order="C") for name, array in arrays.items()}
    numpy = _safetensors()
    from safetensors import SafetensorError

    try:
        numpy.save_file(contiguous, unfinished)
    except SafetensorError as error:  # in which it puts what the system says
        raise OSError(str(error)) from error
    os.replace(unfinished, path)


def _safetensors() -> Any:
    try:
        from safetensors import numpy
    except ImportError as error:
        raise ImportError("safetensors is not installed: pip install 'renga[convert]'") from error
    return numpy
