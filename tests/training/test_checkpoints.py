"""Checkpoints: what goes in comes out, what is not whole was never there, and what differs is named."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from renga import nets, optim, training
from renga.training import _checkpoints, _sealed, _stored

from ..optim.trees import assert_same, types

ROOT = Path(__file__).parents[2]
NET = nets.mlp(8, 1)
CHAINS = {
    "adam": optim.adam(1e-3),
    "of eight bits": optim.low_bit(optim.adam(1e-3), key=jax.random.key(2), min_size=4),
    "of groups": optim.partition(
        {"w": optim.sgd(0.1, momentum=0.9), "b": optim.set_to_zero()}, {"**/w": "w", "**/b": "b"}
    ),
    "averaged": optim.chain(optim.sam(0.1), optax.adamw(1e-3), optim.ema_params(0.9)),
}
PLAIN = {"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(3, np.float32)}


def state_of(tx: Any) -> training.TrainState:
    return training.init(NET.init(jax.random.key(0), jnp.ones((4, 3))), tx, key=jax.random.key(1))


def plainly(leaf: Any) -> Any:
    return leaf + jnp.ones((), leaf.dtype)


def saved(directory: Path, *steps: int, **options: Any) -> training.Checkpoints:
    """Checkpoints of trees that hold their step."""
    with training.Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, {"at": np.array(step)}, {"loss": abs(step - 25)})
    return checkpoints


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("tx", CHAINS.values(), ids=CHAINS.keys())
def test_a_train_state_comes_back_bitwise(tx: Any, tmp_path: Path):
    train_state = state_of(tx)
    grads = jax.tree.map(lambda leaf: 0.1 * jnp.ones_like(leaf), train_state.params)
    extra = {"grad_fn": lambda params: grads}
    _, opt_state = optax.with_extra_args_support(tx).update(grads, train_state.opt_state, train_state.params, **extra)
    train_state = train_state._replace(opt_state=opt_state)
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(7, train_state)
    assert_same(checkpoints.restore(state_of(tx)), train_state)


DTYPES = [
    "bfloat16",
    "float8_e4m3",
    "float16",
    "int4",
    "uint4",
    "float8_e4m3fn",
    "int8",
    "uint8",
    "int32",
    "bool",
    "complex64",
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back(dtype: str, tmp_path: Path):
    tree = [jnp.array([[0, 1, 3], [2, 1, 0]]).astype(dtype), jnp.ones((), dtype)]
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
    found = checkpoints.restore(tree)
    assert types(found) == types(tree)
    assert [np.asarray(leaf).tobytes() for leaf in found] == [np.asarray(leaf).tobytes() for leaf in tree]


def test_doubles_come_back(tmp_path: Path):
    with jax.enable_x64(True), training.Checkpoints(tmp_path) as checkpoints:
        tree = {"pi": jnp.array(np.pi), "big": jnp.array([2**40])}
        checkpoints.save(0, tree)
        assert_same(checkpoints.restore(tree), tree)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_random_keys_come_back_with_their_implementation(impl: str, tmp_path: Path):
    tree = {"one": jax.random.key(3, impl=impl), "many": jax.random.split(jax.random.key(4, impl=impl), (2, 3))}
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
    found = checkpoints.restore(jax.eval_shape(lambda: tree))
    assert_same(found, tree)
    assert jax.random.bits(found["one"]) == jax.random.bits(tree["one"])


def test_leaves_come_back_as_what_they_are_and_containers_without_leaves_too(tmp_path: Path):
    tree = {
        "python": [True, 3, 0.1, 2j], "numpy": (np.float32(0.1), np.arange(3)), "none": None, "empty": ({}, [], ()),
        "no elements": [jnp.zeros((0, 3)), np.zeros((2, 0), np.int8)], "a/b": jnp.ones(1), "a": {"b": jnp.zeros(2)},
        "": jnp.ones(()), "state": optax.EmptyState(),
    }  # fmt: skip
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, tree)
    found = checkpoints.restore(
        jax.tree.map(lambda leaf: type(leaf)(0) if isinstance(leaf, bool | int) else leaf, tree)
    )
    assert_same(found, tree)
    assert [type(leaf) for leaf in jax.tree.leaves(found)] == [type(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_tree_without_arrays_comes_back(tmp_path: Path):
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"none": None})
    assert checkpoints.restore({"none": None}) == {"none": None}


def test_what_is_given_may_change_while_it_is_written(tmp_path: Path):
    array, donated = np.arange(300_000.0), jnp.arange(300_000.0)
    with training.Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(0, {"array": array, "donated": donated})
        array[:] = -1
        jax.jit(plainly, donate_argnums=0)(donated).block_until_ready()
    found = checkpoints.restore({"array": array, "donated": jax.ShapeDtypeStruct((300_000,), "float32")})
    np.testing.assert_array_equal(found["array"], np.arange(300_000.0))
    np.testing.assert_array_equal(found["donated"], np.arange(300_000.0))


def test_the_last_ones_are_kept(tmp_path: Path):
    assert saved(tmp_path, 10, 20, 30, 40, keep=2).steps == (30, 40)
    assert names(tmp_path) == ["step_30", "step_40"]


@pytest.mark.parametrize(("aim", "best"), [("min", 20), ("max", 10)])
def test_the_best_is_kept_too(aim: Any, best: int, tmp_path: Path):
    assert saved(tmp_path, 10, 20, 35, 38, keep=1, best=("loss", aim)).steps == (best, 38)


def test_what_is_not_a_number_or_not_given_is_never_best(tmp_path: Path):
    with training.Checkpoints(tmp_path, keep=1, best=("loss", "max")) as checkpoints:
        for step, metrics in enumerate([{"loss": 1.0}, {"loss": float("nan")}, {}, None, {"loss": 0.5}]):
            checkpoints.save(step, PLAIN, metrics)
    assert checkpoints.steps == (0, 4)


def test_a_step_that_is_saved_again_is_replaced(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    for value in (1.0, 2.0):
        checkpoints.save(20, {"at": np.array(value)})
    assert checkpoints.restore({"at": np.array(0.0)})["at"] == 2
    assert names(tmp_path) == ["step_10", "step_20.2"]
    assert checkpoints.steps == (10, 20)


def test_latest_says_what_was_given_with_it(tmp_path: Path):
    checkpoints = training.Checkpoints(tmp_path / "none" / "yet")
    assert checkpoints.latest() is None
    assert checkpoints.steps == ()
    checkpoints.save(3, PLAIN, {"loss": jnp.float32(0.5)}, extra={"rows": [1, float("inf")]})
    assert checkpoints.latest() == training.Saved(3, {"loss": 0.5}, {"rows": [1, float("inf")]})


def test_another_object_and_an_earlier_step_read_the_same(tmp_path: Path):
    saved(tmp_path, 10, 20)
    assert training.Checkpoints(tmp_path).restore({"at": np.array(0)}, step=10)["at"] == 10


def test_the_list_of_sums_is_one_that_sha256sum_reads(tmp_path: Path):
    saved(tmp_path, 10)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "step_10", check=True)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def files(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.rglob("*") if path.is_file())


def test_one_flipped_bit_of_any_file_is_seen(tmp_path: Path):
    saved(tmp_path, 10)
    for path in files(tmp_path / "step_10"):
        for place in {0, path.stat().st_size // 2, path.stat().st_size - 1} if path.stat().st_size else ():
            assert _sealed.damage(tmp_path / "step_10") is None
            flip(path, place)
            assert _sealed.damage(tmp_path / "step_10"), (path, place)
            flip(path, place)


@pytest.mark.parametrize("harm", ["flipped", "truncated", "lost", "added"])
def test_of_a_damaged_one_the_one_before_is_taken_with_a_warning(harm: str, tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    path = tmp_path / "step_20" / "record.json"
    if harm == "flipped":
        flip(path, 12)
    elif harm == "truncated":
        os.truncate(path, 5)
    elif harm == "lost":
        path.unlink()
    else:
        path.with_name("another").touch()
    what = {"lost": "record.json lost", "added": "another added"}.get(harm, "record.json changed")
    message = (
        f"checkpoints: expected {tmp_path / 'step_20'} as it was saved, got {what}. "
        "It is set aside as step_20.damaged. Step 10 is taken."
    )
    with pytest.warns(training.CheckpointWarning, match=f"^{re.escape(message)}$"):
        assert checkpoints.restore({"at": np.array(0)})["at"] == 10
    assert names(tmp_path) == ["step_10", "step_20.damaged"]
    checkpoints.save(20, {"at": np.array(20)})
    assert checkpoints.restore({"at": np.array(0)})["at"] == 20


def test_a_damaged_one_that_was_asked_for_is_refused(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    (tmp_path / "step_10" / "record.json").unlink()
    message = f"checkpoints: expected {tmp_path / 'step_10'} as it was saved, got record.json lost. Take another step."
    with pytest.raises(training.CheckpointError, match=f"^{re.escape(message)}$"):
        checkpoints.restore({"at": np.array(0)}, step=10)


def test_where_all_are_damaged_nothing_starts_anew_by_itself(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    for step in (10, 20):
        (tmp_path / f"step_{step}" / "record.json").unlink()
    message = (
        f"checkpoints: expected one in {tmp_path} that is as it was saved, got step_10.damaged, step_20.damaged only. "
        "Remove them to start anew."
    )
    for _ in range(2):
        with pytest.raises(training.CheckpointError, match=f"^{re.escape(message)}$"):
            checkpoints.latest()


def test_damage_in_many_places_is_told_in_part(tmp_path: Path):
    saved(tmp_path, 10)
    for path in files(tmp_path / "step_10"):
        if path.name != "SHA256SUMS":
            path.unlink()
    assert re.fullmatch(r"(\S+ lost, ){2}\S+ lost and \d+ more", _sealed.damage(tmp_path / "step_10") or "")


def test_what_a_kill_cut_short_does_not_count_and_is_cleared_away(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, 20)
    (tmp_path / "step_20" / "SHA256SUMS").unlink()
    (tmp_path / "step_30").mkdir()
    assert training.Checkpoints(tmp_path).steps == (10,)
    assert checkpoints.restore({"at": np.array(0)})["at"] == 10
    checkpoints.save(40, {"at": np.array(40)})
    checkpoints.wait()
    assert names(tmp_path) == ["step_10", "step_40"]


FULL = """
import resource, signal, sys
import numpy as np
from renga import training
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = training.Checkpoints(sys.argv[1])
checkpoints.save(10, {"w": np.ones(3)})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
checkpoints.save(20, {"w": np.random.default_rng(0).normal(size=100_000)})
try:
    checkpoints.wait()
except training.CheckpointError as error:
    print(error)
assert checkpoints.restore({"w": np.zeros(3)})["w"].tolist() == [1, 1, 1]
"""


def test_files_that_the_system_does_not_let_grow_lose_nothing_good_and_are_named(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, cwd=ROOT, check=False
    )
    place = tmp_path / "step_20"
    message = f"checkpoints: expected to write {place}, got 'File too large'. Saved before, and as they were: 10."
    assert (result.stdout, result.stderr) == (f"{message}\n", "")
    assert names(tmp_path) == ["step_10"]


def test_a_full_disk_loses_nothing_good_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = saved(tmp_path, 10)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(_checkpoints._sealed, "seal", full)
        checkpoints.save(20, {"at": np.array(20)})
        message = (
            f"checkpoints: expected to write {tmp_path / 'step_20'}, got 'No space left on device'. "
            "Saved before, and as they were: 10."
        )
        with pytest.raises(training.CheckpointError, match=f"^{re.escape(message)}$"):
            checkpoints.save(30, {"at": np.array(30)})
    assert names(tmp_path) == ["step_10"]
    checkpoints.save(30, {"at": np.array(30)})
    assert checkpoints.restore({"at": np.array(0)})["at"] == 30


def test_what_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints, wrote = saved(tmp_path, 10), []
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(tmp_path)._replace(free=2_000_000)
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        patch.setattr(_stored, "write", lambda *args: wrote.append(args))
        checkpoints.save(20, {"at": np.zeros(250_000)})
        message = (
            f"checkpoints: expected to write {tmp_path / 'step_20'}, got 'No space left on device: 3.0 MB wanted, "
            "2.0 MB free'. Saved before, and as they were: 10."
        )
        with pytest.raises(training.CheckpointError, match=f"^{re.escape(message)}$"):
            checkpoints.wait()
    assert (wrote, names(tmp_path)) == ([], ["step_10"])


def test_all_of_it_is_on_the_disk_before_it_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced, seal, sync = set[int](), _sealed.write_whole, os.fsync
    unsynced: list[str] = []

    def fsync(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        sync(handle)

    def write_whole(path: Path, data: bytes) -> None:
        if path.name == _sealed.SEAL:
            held = [path.parent, *path.parent.rglob("*")]
            unsynced.extend(str(each) for each in held if each.stat().st_ino not in synced)
        seal(path, data)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(_sealed, "write_whole", write_whole)
    saved(tmp_path, 10)
    assert synced
    assert unsynced == []


def test_another_network_is_refused_path_by_path(tmp_path: Path):
    checkpoints = training.Checkpoints(tmp_path)
    other = {"w": np.zeros((2, 4)), "b": np.zeros(3, np.float16), "scale": jax.random.key(0)}
    checkpoints.save(0, PLAIN | {"gain": np.zeros(())})
    message = (
        f"checkpoints: expected the arrays of {tmp_path / 'step_0'}, got others:\n"
        "  b: saved float32[3], given float16[3]\n"
        "  gain: saved float64[], given nothing\n"
        "  w: saved float64[2, 3], given float64[2, 4]\n"
        "  scale: saved nothing, given key<fry>[]\n"
        "Give a train state of the network and the chain that were saved."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checkpoints.restore(other)


def test_of_many_differences_the_first_are_told(tmp_path: Path):
    checkpoints = training.Checkpoints(tmp_path)
    checkpoints.save(0, [np.zeros(1)] * 40)
    with pytest.raises(ValueError, match=r"29: saved float64\[1\], given float64\[\]\n  and 10 more\nGive"):
        checkpoints.restore([np.zeros(())] * 40)


def test_a_network_of_other_sizes_is_named_by_its_parameters(tmp_path: Path):
    checkpoints, tx = training.Checkpoints(tmp_path), optim.adam(1e-3)
    checkpoints.save(0, state_of(tx))
    other = training.init(nets.mlp(9, 1).init(jax.random.key(0), jnp.ones((4, 3))), tx, key=jax.random.key(1))
    with pytest.raises(ValueError, match=r"\n  params/layers/0/w: saved float32\[3, 8\], given float32\[3, 9\]\n"):
        checkpoints.restore(other)


def test_what_is_no_array_is_refused_by_its_path(tmp_path: Path):
    message = "checkpoints: expected arrays and numbers, got str at 'a/0'. What is no array may be kept as extra."
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        training.Checkpoints(tmp_path).save(0, {"a": ["name"]})


def test_a_step_that_is_none_is_refused(tmp_path: Path):
    message = "Checkpoints.save: expected step to be an integer of at least 0, got -1"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.Checkpoints(tmp_path).save(-1, PLAIN)


def test_a_step_before_the_last_one_is_refused_since_it_would_not_be_kept(tmp_path: Path):
    checkpoints = saved(tmp_path, 10, keep=1)
    checkpoints.save(20, {"at": np.array(20)})
    message = (
        f"Checkpoints.save: expected a step of at least 20, the last in {tmp_path}, got 10. "
        "Give a run that goes back a directory of its own."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        checkpoints.save(10, {"at": np.array(10)})
    assert checkpoints.steps == (20,)


def test_a_step_that_was_not_saved_is_refused_with_those_that_were(tmp_path: Path):
    empty = f"checkpoints: expected one in {tmp_path / 'empty'}, got none."
    with pytest.raises(training.CheckpointError, match=f"^{re.escape(empty)}$"):
        training.Checkpoints(tmp_path / "empty").restore(PLAIN)
    other = f"checkpoints: expected one of step 15 in {tmp_path}, got steps 10, 20."
    with pytest.raises(training.CheckpointError, match=f"^{re.escape(other)}$"):
        saved(tmp_path, 10, 20).restore(PLAIN, step=15)


@pytest.mark.parametrize("wrong", [("loss", "lowest"), "loss", ("loss",)])
def test_a_best_that_is_none_is_refused(wrong: Any, tmp_path: Path):
    message = (
        f"Checkpoints: expected best to be a metric and 'min' or 'max', got {wrong!r}. "
        "Write best=('test_loss', 'min'), say."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.Checkpoints(tmp_path, best=wrong)


def test_keeping_none_is_refused(tmp_path: Path):
    message = "Checkpoints: expected keep to be an integer of at least 1, got 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.Checkpoints(tmp_path, keep=0)


def test_without_orbax_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    message = (
        "checkpoints: expected orbax-checkpoint to be installed, got none. "
        "Install it with pip install 'renga[checkpoint]'."
    )
    with pytest.raises(ImportError, match=f"^{re.escape(message)}$"):
        training.Checkpoints(tmp_path)


def test_a_record_is_json_that_names_every_array(tmp_path: Path):
    saved(tmp_path, 10)
    record = json.loads((tmp_path / "step_10" / "record.json").read_text(encoding="utf-8"))
    assert record["leaves"] == [["at", [], "int64"]]


def test_arrays_come_back_on_other_devices():
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    program = [sys.executable, "-m", "tests.training.restored_over_devices"]
    result = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT, env=os.environ | flags)
    assert result.returncode == 0, result.stderr[-3000:]
