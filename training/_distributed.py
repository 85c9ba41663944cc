"""Several processes as one: JAX's own distributed runtime, with defaults from where the program runs."""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

ADDRESS, COUNT, PLACE = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")


class _Place(NamedTuple):
    """What a process is told; no address where JAX finds it out from SLURM."""

    address: str | None
    num_processes: int
    process_id: int


def initialize_distributed(
    address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    start_seconds: int = 300,
    heartbeat_seconds: int = 100,
) -> int:
    """Makes the devices of all processes visible to each: the first line of a script that runs in several.

    What is not given comes from the environment: from `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and
    `JAX_PROCESS_ID`; else from SLURM, as `srun python train.py` sets it. Where none of them says that there are several
    processes, nothing is done: the same script runs in one. On CPUs, arrays go from one process to another by gloo.

    A process that dies takes the others with it, after `heartbeat_seconds`, with a message of JAX's and no exception of
    Python's. Start them again, in any number: `fit` goes on from its last checkpoint.

    Args:
      address: "host:port" of process 0, that all can reach.
      num_processes: how many there are.
      process_id: which one this is, from 0.
      start_seconds: how long to wait for all to come.
      heartbeat_seconds: how long a process may be silent.
    Returns:
      How many processes there are.
    Raises:
      ValueError: if something is missing or no number, or the place is none of so many; if it was called before with
        other arguments.
      RuntimeError: if JAX has been used before.

    >>> initialize_distributed()  # where nothing says that there are others
    1
    """
    here = _place(address, num_processes, process_id, os.environ)
    if here.num_processes == 1:
        return 1
    if jax.distributed.is_initialized():
        _check_again(here)
        return here.num_processes
    told: dict[str, Any] = {"num_processes": here.num_processes, "process_id": here.process_id}
    if here.address is None:
        told = {"cluster_detection_method": "slurm"}
    try:
        jax.distributed.initialize(
            here.address, initialization_timeout=start_seconds, heartbeat_timeout_seconds=heartbeat_seconds, **told
        )
    except RuntimeError as error:
        if "must be called before" not in str(error):
            raise
        raise RuntimeError(
            "initialize_distributed: expected to be called before JAX is used, got a program that has made arrays or "
            "asked for devices. Make it the first line after the imports."
        ) from None
    return here.num_processes


def _place(address: str | None, count: Any, index: Any, environment: Mapping[str, str]) -> _Place:
    """What a process is told by arguments, then by JAX's variables, then by SLURM's.

    Raises:
      ValueError: for what is missing or out of range.
    """
    given = {"address": address, "num_processes": count, "process_id": index}
    names = {"address": ADDRESS, "num_processes": COUNT, "process_id": PLACE}
    found = {key: environment.get(names[key]) if value is None else value for key, value in given.items()}
    if all(value is None for value in found.values()):
        return _place_in_slurm(environment)
    if found["num_processes"] is not None and _number(found, "num_processes") == 1:
        return _Place(None, 1, 0)
    missing = [f"{key} ({names[key]})" for key, value in found.items() if value is None]
    if missing:
        raise ValueError(
            "initialize_distributed: expected address, num_processes and process_id, got no "
            f"{' and no '.join(missing)}. Give all three as arguments or in the environment, or none."
        )
    count, index = _number(found, "num_processes"), _number(found, "process_id")
    if not 0 <= index < count:
        raise ValueError(
            f"initialize_distributed: expected process_id to be in [0, {count - 1}], got {index}. "
            "Number the processes from 0."
        )
    if not re.fullmatch(r".+:\d+", str(found["address"])):
        raise ValueError(
            f"initialize_distributed: expected address to be 'host:port', got {found['address']!r}. "
            "Give that of process 0, such as 'localhost:12345'."
        )
    return _Place(str(found["address"]), count, index)


def _place_in_slurm(environment: Mapping[str, str]) -> _Place:
    if not all(name in environment for name in _SLURM):
        return _Place(None, 1, 0)
    return _Place(None, int(environment["SLURM_NTASKS"]), int(environment["SLURM_PROCID"]))


def _number(found: Mapping[str, Any], key: str) -> int:
    least, text = int(key == "num_processes"), str(found[key])
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"initialize_distributed: expected {key} to be an integer of at least {least}, got {found[key]!r}. "
            "Look at the arguments and the environment."
        )
    return int(text)


def _check_again(here: _Place) -> None:
    now = jax.process_count(), jax.process_index()
    if (here.num_processes, here.process_id) != now:
        raise ValueError(
            f"initialize_distributed: expected process {now[1]} of {now[0]}, as when it was first called, got process "
            f"{here.process_id} of {here.num_processes}. Call it once."
        )
