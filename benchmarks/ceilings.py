"""What this machine can do at most, in JAX: floating-point operations a second, and bytes a second.

    python benchmarks/ceilings.py

The first is that of a product of two square float32 matrices at JAX's default precision, of the size that does best;
the second that of a pass over a large array in place, which reads it and writes it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from results import environment
from runner import Round, compare, write

SIZES = {"cpu": (1024, 1280, 1536, 1792, 2048)}
LARGER = (2048, 4096, 8192)  # on accelerators
LENGTH = 64 << 20


def products(size: int, num: int = 4) -> Round:
    """A round of matrix products."""
    a, b = jax.random.normal(jax.random.key(0), (2, size, size))
    product = jax.jit(jnp.matmul)

    def run() -> int:
        jax.block_until_ready([product(a, b) for _ in range(num)])
        return num

    return run


def passes(length: int, num: int = 4) -> Round:
    """A round of passes over one array, whose memory is given to its successor."""
    held = [jnp.ones(length)]
    scale = jax.jit(lambda x: x * 0.999, donate_argnums=0)

    def run() -> int:
        for _ in range(num):
            held[0] = scale(held[0])
        jax.block_until_ready(held[0])
        return num

    return run


def measure(sizes: Sequence[int] = (), length: int = LENGTH, num_rounds: int = 9) -> dict[str, float]:
    """Measures both.

    Args:
      sizes: of the matrices; those for this backend, if there are none.
      length: of the array.
      num_rounds: counted rounds.
    Returns:
      `flops` and `bytes` a second.
    """
    sizes = sizes or SIZES.get(jax.default_backend(), LARGER)
    cases = {str(size): products(size) for size in sizes}
    timings = compare(cases, str(sizes[0]), num_rounds)
    seconds = compare({"pass": passes(length)}, "pass", num_rounds)["pass"].median / 1e6
    flops = max(2 * size**3 / timings[str(size)].median * 1e6 for size in sizes)
    return {"flops": float(f"{flops:.4g}"), "bytes": float(f"{8 * length / seconds:.4g}")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="counted rounds of each size")
    parser.add_argument("--json", type=Path, help="file to write the result to")
    options = parser.parse_args()
    record = {**environment(), "ceilings": measure(num_rounds=options.rounds)}
    print(f"{record['ceilings']['flops'] / 1e9:.0f} GFLOP/s, {record['ceilings']['bytes'] / 1e9:.1f} GB/s")
    if options.json:
        write(options.json, record)
