"""`renga export`: the parameters of a run for other programs."""

from pathlib import Path

from ...nets.convert import save_safetensors
from ._config import ConfigError
from ._directory import config_of
from ._loaded import arrays_of


def export(directory: Path, file: Path) -> str:
    """Writes what a run learnt as safetensors: arrays by path, a network's state under `state/`.

    Args:
      directory: of the run.
      file: to write, of a name that ends in `.safetensors`.
    Returns:
      What was written, in words.
    Raises:
      ConfigError: if there is no run, or none with parameters yet, or the file is no new one in a directory that there
        is, or the extra is missing.
    """
    config_of(directory, ended=True)
    if file.suffix != ".safetensors":
        raise ConfigError(f"{file}: expected a file that ends in .safetensors, got '{file.suffix}'")
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: expected a file in a directory that there is, got '{file.parent}'")
    if file.exists():
        raise ConfigError(f"{file}: expected a new file, got one that there is. Move it away, or give another name")
    arrays = arrays_of(directory)
    try:
        save_safetensors(arrays, file)
    except ImportError as error:
        raise ConfigError(f"{file}: {error}") from None
    except OSError as error:
        raise ConfigError(f"{file}: expected a file that can be written, got '{error}'") from None
    return f"{len(arrays)} arrays, {sum(array.size for array in arrays.values()):,} numbers, in {file}"
