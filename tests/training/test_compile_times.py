"""What programs cost before they run."""

import jax
import jax.numpy as jnp

from renga import training


def test_every_program_has_its_phases_under_its_name():
    def inner(x):
        return jnp.sin(x) @ x

    @jax.jit
    def first_of_mine(x):
        return jax.jit(inner)(x) + 1

    @jax.jit
    def second_of_mine(x):
        return x * 2

    x = jnp.ones((3, 3))
    with training.compile_times() as times:
        for _ in range(2):  # the second time nothing is compiled
            second_of_mine(first_of_mine(x))
    assert {"first_of_mine", "second_of_mine"} <= times.programs.keys()
    assert "inner" not in times.programs
    for name in ("first_of_mine", "second_of_mine"):
        row = times.programs[name]
        assert row["count"] == 1
        assert min(row["trace"], row["lower"], row["compile"]) > 0
    assert times.total["count"] == sum(row["count"] for row in times.programs.values())


def test_nothing_is_heard_after_the_context():
    with training.compile_times() as times:
        pass
    jax.jit(lambda x: x - 3)(jnp.ones(7))
    assert times.programs == {}
    assert str(times) == "seconds    trace    lower  compile  programs"


def test_it_prints_the_longest_first_and_the_sum():
    times = training.CompileTimes()
    for name, seconds in (("short", 1.0), ("long", 2.5)):
        times.heard("/jax/core/compile/jaxpr_trace_duration", seconds / 2, fun_name=name)
        times.heard("/jax/core/compile/jaxpr_to_mlir_module_duration", 0.25, fun_name=f"jit({name})")
        times.heard("/jax/core/compile/backend_compile_duration", seconds, fun_name=f"jit({name})")
    times.heard("/jax/something/else", 9.0)
    times.found("/jax/compilation_cache/cache_hits")
    times.found("/jax/compilation_cache/tasks_using_cache")
    assert str(times).splitlines() == [
        "seconds    trace    lower  compile  programs",
        "long       1.250    0.250    2.500         1",
        "short      0.500    0.250    1.000         1",
        "all        1.750    0.500    3.500         2",
        "1 of them were found in the cache",
    ]
