"""Rules by path, the state of every chain that follows them, and runs on four devices and in two processes."""

import datetime
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from renga import optim, training
from renga.training._distributed import _place
from renga.training._run import check_checkpoints

from ..optim.registry import LINKS
from ..test_examples import load
from . import over_processes

ROOT = Path(__file__).parent.parent.parent
MESH: Any = AbstractMesh((4, 2), ("data", "model"))
PARAMS = {"head": {"b": jnp.ones(6), "w": jnp.ones((8, 6))}, "tail": {"w": jnp.ones((4, 12))}}


def specs(params: Any, rules: training.ShardingRules, mesh: Any = MESH, tx: Any = None) -> Any:
    shardings = training.shardings_of(training.init(params, tx or optim.sgd(0.1)), mesh, rules)
    return jax.tree.map(lambda sharding: sharding.spec, shardings)


def refused(message: str, params: Any, rules: training.ShardingRules, mesh: Any = MESH) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        specs(params, rules, mesh)


def test_the_first_pattern_that_matches_a_path_counts():
    rules = training.ShardingRules({"head/w": P("data"), "**/w": P(None, "model"), "**": P()})
    assert specs(PARAMS, rules).params == {"head": {"b": P(), "w": P("data")}, "tail": {"w": P(None, "model")}}


def test_data_parallel_keeps_all_parameters_whole_but_those_that_are_named():
    assert set(jax.tree.leaves(specs(PARAMS, training.data_parallel()).params)) == {P()}
    named = specs(PARAMS, training.data_parallel({"tail/w": P("model")})).params
    assert named == {"head": {"b": P(), "w": P()}, "tail": {"w": P("model")}}


def test_fully_sharded_takes_the_largest_axis_that_can_be_divided():
    params = {"a": jnp.ones((6, 4, 8)), "last": jnp.ones((8, 8)), "odd": jnp.ones((5, 7)), "one": jnp.ones(())}
    found = specs(params, training.fully_sharded(min_size=1)).params
    assert found == {"a": P(None, None, "data"), "last": P(None, "data"), "odd": P(), "one": P()}
    both = specs(params, training.fully_sharded(axes=("data", "model"), min_size=65)).params
    assert both == {"a": P(None, None, ("data", "model")), "last": P(), "odd": P(), "one": P()}


def test_rules_of_ones_own_compare_and_hash_by_what_they_say():
    assert training.data_parallel({"**/w": P("model")}) == training.ShardingRules({"**/w": P("model"), "**": P()})
    assert hash(training.fully_sharded()) == hash(training.fully_sharded())
    assert training.ShardingRules({"a": P(), "**": P()}) != training.ShardingRules({"**": P(), "a": P()})


def test_parameters_may_be_a_list_or_one_array():
    assert specs([jnp.ones((4, 3)), jnp.ones((3, 4))], training.fully_sharded(min_size=1)).params == [
        P("data"),
        P(None, "data"),
    ]
    assert specs(jnp.ones((4, 3)), training.fully_sharded(min_size=1), tx=optim.adam(1e-3)).opt_state[0].mu == P("data")


def test_what_is_carried_beside_parameters_is_whole_on_every_device():
    tx, key = optim.sgd(0.1), jax.random.key(0)
    train_state = training.init(PARAMS, tx, state={"mean": jnp.ones((8, 6))}, key=key)
    found: Any = training.shardings_of(train_state, MESH, training.fully_sharded(min_size=1))
    assert {found.state["mean"].spec, found.step.spec, found.key.spec} == {P()}


@pytest.mark.parametrize("name", LINKS)
def test_the_state_of_every_link_follows_its_parameters(name: str):
    shapes = {"b": (12,), "c": {"w": (4, 5)}, "w": (16, 6)}
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda node: isinstance(node, tuple))
    state = jax.eval_shape(lambda: training.init(params, LINKS[name]()))
    found = training.shardings_of(state, MESH, training.fully_sharded(min_size=1))
    wanted = {(16, 6): P("data"), (12,): P("data"), (4, 5): P("data")}
    for (path, leaf), sharding in zip(
        jax.tree_util.tree_leaves_with_path(state.opt_state), jax.tree.leaves(found.opt_state), strict=True
    ):
        assert sharding.spec == wanted.get(leaf.shape, P()), jax.tree_util.keystr(path)


def test_what_is_kept_for_a_parameter_in_another_shape_is_whole_on_every_device():
    found = specs(PARAMS, training.fully_sharded(min_size=1), tx=optim.low_bit(optim.adam(1e-3), key=0, min_size=40))
    assert found.opt_state.inner[0].mu["head"]["w"].codes == P()
    halves = specs(
        PARAMS, training.fully_sharded(min_size=1), tx=optim.low_bit(optim.adam(1e-3), 16, key=0, min_size=40)
    )
    assert halves.opt_state.inner[0].mu["head"]["w"].values == P("data")


def test_the_states_of_players_of_their_own_follow_them():
    players = {"x": {"w": jnp.ones((8, 3))}, "y": {"w": jnp.ones((8, 3))}}
    tx = optim.by_player({"x": optim.adam(1e-3), "y": optim.sgd(0.1, momentum=0.9)})
    found = specs(players, training.data_parallel({"x/w": P("data")}), tx=tx).opt_state
    leaves = {jax.tree_util.keystr(path): spec for path, spec in jax.tree_util.tree_leaves_with_path(found)}
    assert {spec for path, spec in leaves.items() if "w" in path and "'x'" in path} == {P("data")}
    assert {spec for path, spec in leaves.items() if "w" in path and "'y'" in path} == {P()}


def test_a_pattern_that_matches_nothing_is_refused_with_the_paths():
    refused(
        "ShardingRules: expected a pattern that matches a path, got 'heat/w'. There are 'head/w', 'head/b', 'tail/w'.",
        PARAMS,
        training.data_parallel({"heat/w": P("data")}),
    )


def test_a_parameter_without_a_pattern_is_refused():
    refused(
        "ShardingRules: expected a pattern for every parameter, got none for ['head/b']. Add '**' for the rest.",
        PARAMS,
        training.ShardingRules({"**/w": P()}),
    )


def test_an_axis_that_cannot_be_divided_is_refused_by_its_path():
    refused(
        "ShardingRules: expected axis 1 of 'head/w' [8, 6] to be a multiple of the 4 devices along 'data', got 6. "
        "Spread another axis, or none.",
        PARAMS,
        training.data_parallel({"**/w": P(None, "data")}),
    )


def test_two_axes_of_the_mesh_divide_as_their_product():
    assert specs(PARAMS, training.data_parallel({"head/w": P(("data", "model"))})).params["head"]["w"] == P(
        ("data", "model")
    )
    refused(
        "ShardingRules: expected axis 0 of 'tail/w' [4, 12] to be a multiple of the 8 devices along "
        "('data', 'model'), got 4. Spread another axis, or none.",
        PARAMS,
        training.data_parallel({"tail/w": P(("data", "model"))}),
    )


def test_a_spec_of_too_many_axes_is_refused_by_its_path():
    refused(
        "ShardingRules: expected a spec of at most 1 axes for 'head/b' [6], got P(None, 'model'). "
        "Name its path before the pattern that matches it.",
        PARAMS,
        training.ShardingRules({"**": P(None, "model")}),
    )


def test_an_axis_that_the_mesh_does_not_have_is_refused():
    message = (
        "ShardingRules: expected axes of the mesh, ('data', 'model'), for {}, got 'modle'. "
        "Name axes that the mesh has, or make a mesh with this one."
    )
    refused(message.format("'tail/w'"), PARAMS, training.data_parallel({"tail/w": P(None, "modle")}))
    refused(message.format("'head/b'"), PARAMS, training.fully_sharded(axes="modle"))


def test_an_axis_of_the_mesh_that_comes_twice_is_refused_by_its_path():
    message = (
        "ShardingRules: expected each axis of the mesh once for 'tail/w', got {}. "
        "Spread one axis of the parameter over it."
    )
    for spec in (P("data", "data"), P(("data", "data"))):
        refused(message.format(spec), PARAMS, training.data_parallel({"tail/w": spec}))


def test_an_axis_that_is_left_open_is_refused():
    message = (
        "ShardingRules: expected axes of the mesh, ('data', 'model'), for 'tail/w', got UNCONSTRAINED. "
        "Name axes that the mesh has, or make a mesh with this one."
    )
    refused(message, PARAMS, training.data_parallel({"tail/w": P(None, P.UNCONSTRAINED)}))


def test_what_is_no_spec_is_refused():
    message = (
        "ShardingRules: expected a PartitionSpec for '**/w', got 'model'. Write PartitionSpec(None, 'model'), say."
    )
    wrong: Any = {"**/w": "model"}
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        training.data_parallel(wrong)


def test_a_smallest_size_below_one_is_refused():
    message = "fully_sharded: expected min_size to be an integer of at least 1, got 0"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        training.fully_sharded(min_size=0)


def counting(train_state: training.TrainState, batch: Any) -> Any:
    return train_state._replace(step=train_state.step + 1), {"mean": jnp.mean(batch)}


def count(**options: Any) -> Any:
    train_state = training.init(jnp.zeros(()), optim.sgd(0.1))
    return training.fit(counting, train_state, np.ones((9, 4, 2), np.float32), num_steps=9, progress=False, **options)


def test_rules_without_a_mesh_are_refused():
    message = "fit: expected a mesh where there are rules, got None. Give mesh=jax.make_mesh((4,), ('data',)), say."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        count(rules=training.data_parallel())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mesh": 4}, "fit: expected mesh to be such as jax.make_mesh((4,), ('data',)), got int."),
        ({"rules": {"**": P()}}, "fit: expected rules to be such as training.fully_sharded(), got dict."),
    ],
)
def test_what_is_no_mesh_or_no_rules_is_refused(wrong: dict[str, Any], message: str):
    options = {"mesh": jax.make_mesh((1,), ("data",))} | wrong
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        count(**options)


def test_a_mesh_without_the_axis_of_batches_is_refused():
    message = (
        "ShardingRules: expected axes of the mesh, ('model',), for batches, got 'data'. "
        "Name axes that the mesh has, or make a mesh with this one."
    )
    for use in (lambda mesh: count(mesh=mesh), lambda mesh: training.local_batches(over_processes.feed(), mesh)):
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            use(jax.make_mesh((1,), ("model",)))


def test_local_batches_of_what_cannot_be_taken_up_are_refused():
    message = (
        "local_batches: expected batches with a method starting_at(step), got list. "
        "Give training.batches, or a class with this method."
    )
    wrong: Any = [jnp.ones(4)]
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        training.local_batches(wrong, jax.make_mesh((1,), ("data",)))


def test_the_train_state_that_was_given_stays_valid_on_a_mesh():
    mesh = jax.make_mesh((1,), ("data",))
    train_state = training.shard(training.init(jnp.zeros(()), optim.sgd(0.1)), mesh, training.data_parallel())
    step = lambda train_state, batch: (train_state._replace(step=train_state.step + 1), {})  # noqa: E731
    found, _ = training.fit(step, train_state, np.ones((3, 4)), num_steps=3, mesh=mesh, progress=False)
    assert (found.step.item(), train_state.step.item()) == (3, 0)


def test_several_processes_that_save_need_a_mesh_and_an_interval_of_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    given: Any = training.Checkpoints(tmp_path), over_processes.feed()
    message = (
        "fit: expected a mesh where 2 processes save to one directory, got None. "
        "Give mesh=jax.make_mesh((jax.device_count(),), ('data',))."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_checkpoints(given[0], 10, given[1], None)
    message = (
        "fit: expected checkpoint_every to be a number of steps where there are 2 processes, whose clocks differ, got "
        "datetime.timedelta(seconds=30). Give checkpoint_every=1000, say."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_checkpoints(given[0], datetime.timedelta(seconds=30), given[1], MESH)


JAXS = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "2"}
SLURMS = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_NTASKS": "8",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}


def test_a_process_is_told_its_place_by_arguments_then_the_environment_then_slurm():
    assert _place(None, None, None, {}) == (None, 1, 0)
    assert _place(None, None, None, JAXS | SLURMS) == ("a:1", 4, 2)
    assert _place("b:2", 3, 0, JAXS) == ("b:2", 3, 0)
    assert _place(None, None, 1, JAXS) == ("a:1", 4, 1)
    assert _place(None, None, None, SLURMS) == (None, 8, 3)
    assert _place(None, None, None, SLURMS | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}) == (None, 1, 0)
    assert _place(None, 1, None, {}) == (None, 1, 0)


def test_an_allocation_of_slurm_without_srun_is_one_process():
    assert _place(None, None, None, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}) == (None, 1, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("a:1", None, None),
            "expected address, num_processes and process_id, got no num_processes (JAX_NUM_PROCESSES) and no "
            "process_id (JAX_PROCESS_ID). Give all three as arguments or in the environment, or none.",
        ),
        (("a:1", 2, 2), "expected process_id to be in [0, 1], got 2. Number the processes from 0."),
        (
            ("a", 2, 0),
            "expected address to be 'host:port', got 'a'. Give that of process 0, such as 'localhost:12345'.",
        ),
        (
            ("a:1", "two", 0),
            "expected num_processes to be an integer of at least 1, got 'two'. "
            "Look at the arguments and the environment.",
        ),
        (
            ("a:1", 2, -1),
            "expected process_id to be an integer of at least 0, got -1. Look at the arguments and the environment.",
        ),
    ],
)
def test_a_place_that_is_none_is_refused(given: Any, message: str):
    with pytest.raises(ValueError, match=f"^initialize_distributed: {re.escape(message)}$"):
        training.initialize_distributed(*given)


def test_processes_that_have_used_jax_come_too_late():
    jax.devices()
    message = (
        "initialize_distributed: expected to be called before JAX is used, got a program that has made arrays or asked "
        "for devices. Make it the first line after the imports."
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
        training.initialize_distributed("localhost:1", 2, 0)


def started(module: str, *arguments: Any, devices: int, **environment: str) -> subprocess.Popen[str]:
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_PLATFORMS": "cpu"}
    program = [sys.executable, "-m", f"tests.training.{module}", *map(str, arguments)]
    options: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    return subprocess.Popen(program, env=os.environ | flags | environment, **options)


def ended(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


def test_a_transformer_on_four_devices_has_the_losses_of_one():
    ended(started("over_meshes", "Explicit", devices=4))


@pytest.mark.slow
@pytest.mark.parametrize("axes", [pytest.param("Auto", marks=pytest.mark.long), "Explicit"])
def test_a_run_on_four_devices_goes_on_on_two_and_on_one(axes: str):
    ended(started("over_meshes", axes, "everything", devices=4))


def pair(*arguments: Any) -> list[subprocess.Popen[str]]:
    """Two processes of two devices each."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    shared = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    return [started("over_processes", *arguments, devices=2, **shared, JAX_PROCESS_ID=str(place)) for place in range(2)]


def losses(printed: str) -> list[float]:
    return [json.loads(line)["loss"] for line in printed.splitlines() if line.startswith("{")]


def test_two_processes_have_the_losses_of_one_which_goes_on_when_one_of_them_is_killed(tmp_path: Path):
    _, history = over_processes.run(40)
    expected = [row["loss"] for row in history]
    survivor, killed = pair(40, tmp_path, 20)
    killed.communicate(timeout=300)
    assert killed.returncode == -9
    survivor.kill()
    before = losses(survivor.communicate()[0])
    assert len(before) >= 1
    np.testing.assert_allclose(before, expected[: len(before)], atol=1e-5)
    assert training.Checkpoints(tmp_path).latest() is not None
    after = losses(ended(started("over_processes", 40, tmp_path, devices=4)))
    np.testing.assert_allclose(after, expected[-len(after) :], atol=1e-5)
    assert len(after) < len(expected)


@pytest.mark.long
def test_two_processes_end_together_and_go_on_together(tmp_path: Path):
    _, history = over_processes.run(40)
    for num_steps in (20, 40):
        first, second = pair(num_steps, tmp_path)
        found = losses(ended(first))
        assert losses(ended(second)) == []
        np.testing.assert_allclose(
            found, [row["loss"] for row in history[num_steps // 10 - 2 : num_steps // 10]], atol=1e-5
        )
    assert training.Checkpoints(tmp_path).steps == (20, 30, 40)


@pytest.mark.slow
def test_sigterm_to_one_process_stops_both_at_one_step_which_is_saved(tmp_path: Path):
    first, second = pair(200, tmp_path)
    assert first.stdout is not None
    before = losses(first.stdout.readline())
    second.terminate()
    before += losses(first.communicate(timeout=300)[0])
    second.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (143, 143)
    saved = training.Checkpoints(tmp_path).latest()
    assert saved is not None
    assert 10 <= saved.step < 200
    after = losses(ended(started("over_processes", 200, tmp_path, devices=4)))
    _, history = over_processes.run(200)
    np.testing.assert_allclose(before + after, [row["loss"] for row in history], atol=1e-5)


@pytest.mark.slow
def test_the_example_has_one_loss_in_every_layout():
    losses = load("many_devices").main(num_steps=20)
    assert set(losses) == {"one device", "data-parallel", "fully sharded", "tensor-parallel"}
    np.testing.assert_allclose(list(losses.values()), losses["one device"], atol=1e-5)
