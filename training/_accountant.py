"""What private training gives away, as the epsilon of differential privacy."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from ._checks import check_count
from ._poisson import check_rate

Accountant = Literal["rdp", "pld"]

# Those of Opacus and of TensorFlow Privacy.
_ORDERS = (*(1 + tenth / 10 for tenth in range(1, 100)), *range(12, 64), 128, 256, 512)
_LARGEST_NOISE = 2.0**20


def epsilon(
    noise_multiplier: float, sample_rate: float, num_steps: int, *, delta: float, accountant: Accountant = "rdp"
) -> float:
    """The epsilon of so many steps of `private` on batches of `poisson_batches`, for examples added or removed.

    "rdp" adds up Rényi divergences, their integrals taken by quadrature, and is fast. "pld" adds up the distribution of
    the privacy loss itself, is tighter, takes longer, and needs the library dp-accounting.

    Source: Mironov, Talwar, Zhang 2019, https://arxiv.org/abs/1908.10530, equation 2 and section 3; from divergences to
    epsilon, Canonne, Kamath, Steinke 2020, https://arxiv.org/abs/2004.00010, proposition 12; "pld", Doroshenko, Ghazi,
    Kamath, Kumar, Manurangsi 2022, https://arxiv.org/abs/2207.04380.

    Args:
      noise_multiplier: as for `private`, above 0.
      sample_rate: the chance of each example to be in a batch, in (0, 1].
      num_steps: how many steps, at least 0.
      delta: the chance left for epsilon not to hold, in (0, 1); below one over the number of examples.
      accountant: "rdp" or "pld".
    Returns:
      Epsilon, infinite if there is no noise to speak of.
    Raises:
      ValueError: for numbers out of range, and for another accountant.
      ImportError: for "pld" without dp-accounting.

    >>> round(epsilon(1.5, 0.04, 2250, delta=1e-5), 4)
    7.3291
    """
    _check("epsilon", sample_rate, num_steps, delta, accountant)
    _check_positive("epsilon", "noise_multiplier", noise_multiplier)
    if num_steps == 0:
        return 0.0
    return _ACCOUNTANTS[accountant](noise_multiplier, sample_rate, num_steps, delta)


def noise_multiplier(
    epsilon: float, sample_rate: float, num_steps: int, *, delta: float, accountant: Accountant = "rdp"
) -> float:
    """The least noise for which so many steps keep to an epsilon, the other way round.

    Args:
      epsilon: what is to be kept to, above 0.
      sample_rate: as for `epsilon`.
      num_steps: as for `epsilon`, at least 1.
      delta: as for `epsilon`.
      accountant: as for `epsilon`.
    Returns:
      A noise multiplier for `private`, at most 0.001 above the least one.
    Raises:
      ValueError: as for `epsilon`, and for an epsilon that no noise keeps to.
      ImportError: as for `epsilon`.

    >>> round(noise_multiplier(8.0, 0.04, 2250, delta=1e-5), 3)
    1.416
    """
    _check("noise_multiplier", sample_rate, num_steps, delta, accountant)
    _check_positive("noise_multiplier", "epsilon", epsilon)
    check_count("noise_multiplier", "num_steps", num_steps, at_least=1)
    spent = _ACCOUNTANTS[accountant]
    high = 1.0
    while spent(high, sample_rate, num_steps, delta) > epsilon:
        high *= 2
        if high > _LARGEST_NOISE:
            hint = " The accountant 'pld' is tighter." if accountant == "rdp" else ""
            raise ValueError(
                f"noise_multiplier: expected an epsilon that {accountant!r} can show for some noise at delta {delta}, "
                f"got {epsilon!r}.{hint}"
            )
    low = high / 2 if high > 1 else 0.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle, sample_rate, num_steps, delta) > epsilon else (low, middle)
    return high


def _by_divergences(noise: float, rate: float, num_steps: int, delta: float) -> float:
    found = [
        num_steps * _divergence(noise, rate, order) + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
        for order in _ORDERS
    ]
    return float(max(min(found), 0.0))


def _divergence(noise: float, rate: float, order: float) -> float:
    """Rényi divergence of this order of `(1 - rate) N(0, noise^2) + rate N(1, noise^2)` from `N(0, noise^2)`."""
    if rate == 1:
        return order / (2 * noise**2)
    z = np.linspace(-12 * noise, order + 12 * noise, max(2001, int(40 * (order + 24 * noise) / noise)))
    density = -(z**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    ratio = np.logaddexp(math.log1p(-rate), math.log(rate) + (2 * z - 1) / (2 * noise**2))
    terms = density + order * ratio
    largest = terms.max()
    # The trapezoid rule converges faster than any power for such functions; both ends are as good as zero.
    integral = largest + math.log(np.exp(terms - largest).sum() * (z[1] - z[0]))
    return max(integral, 0.0) / (order - 1)


def _by_distributions(noise: float, rate: float, num_steps: int, delta: float) -> float:
    try:
        import dp_accounting
        from dp_accounting import pld
    except ImportError as error:
        raise ImportError(
            "epsilon: expected dp-accounting for 'pld', got none. pip install 'renga[privacy]'"
        ) from error
    draw = dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise))
    accountant = pld.PLDAccountant().compose(draw, num_steps)
    return float(accountant.get_epsilon(delta))


_ACCOUNTANTS: dict[str, Callable[[float, float, int, float], float]] = {
    "rdp": _by_divergences,
    "pld": _by_distributions,
}


def _check(name: str, rate: Any, num_steps: Any, delta: Any, accountant: Any) -> None:
    check_rate(name, "sample_rate", rate)
    check_count(name, "num_steps", num_steps, at_least=0)
    if not isinstance(delta, float | np.floating) or not 0 < delta < 1:
        raise ValueError(f"{name}: expected delta to be a number in (0, 1), got {delta!r}")
    if accountant not in _ACCOUNTANTS:
        raise ValueError(f"{name}: expected accountant to be one of {list(_ACCOUNTANTS)}, got {accountant!r}")


def _check_positive(name: str, argument: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < math.inf:
        raise ValueError(f"{name}: expected {argument} to be a number above 0, got {value!r}")
