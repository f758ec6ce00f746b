"""An always-valid test of "the failure rate is at most p0": it may be looked at after every request.

For each alternative rate q > p0 the likelihood ratio of k failures in n requests,

    (q / p0)^k * ((1 - q) / (1 - p0))^(n - k),

is a supermartingale with start 1 under every true rate p <= p0, since its expected one-step factor is linear and
increasing in p and equals 1 at p0. A mixture over q with fixed weights is one too. By Ville's inequality it ever
reaches 1/alpha with probability at most alpha, however often one looks: an e-process (Ramdas, Gruenwald, Vovk and
Shafer, "Game-theoretic statistics and safe anytime-valid inference", Statistical Science 38(4), 2023; the mixture goes
back to Robbins, "Statistical methods related to the law of the iterated logarithm", Ann. Math. Statist. 41(5), 1970).

The reciprocal of the e-value, cut at 1, is an anytime-valid p-value.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

_ALTERNATIVES = 24
_LARGEST = 0.95


@lru_cache(maxsize=256)
def _grid(p0: float) -> tuple[tuple[float, float], ...]:
    """Log factors per failure and per success of each alternative rate, evenly spaced in log-odds above p0."""
    low, high = _logit(min(1.25 * p0, (p0 + _LARGEST) / 2)), _logit(_LARGEST)
    rates = [_expit(low + (high - low) * i / (_ALTERNATIVES - 1)) for i in range(_ALTERNATIVES)]
    return tuple((math.log(q / p0), math.log1p(-q) - math.log1p(-p0)) for q in rates)


def _logit(p: float) -> float:
    return math.log(p) - math.log1p(-p)


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_e_value(failures: int, requests: int, p0: float) -> float:
    """Natural logarithm of the evidence against "the failure rate is at most p0".

    Args:
        failures: requests that failed, 0 <= failures <= requests.
        requests: requests seen.
        p0: largest rate that is still good, 0 < p0 < 0.95.

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= failures <= requests:
        raise ValueError(f"failures must lie between 0 and requests, got {failures} of {requests}")
    if not 0 < p0 < _LARGEST:
        raise ValueError(f"p0 must lie between 0 and {_LARGEST}, got {p0}")
    terms = [failures * gain + (requests - failures) * loss for gain, loss in _grid(p0)]
    peak = max(terms)
    return peak + math.log(sum(math.exp(term - peak) for term in terms) / _ALTERNATIVES)


def upper_bound(failures: int, requests: int, confidence: float = 0.99) -> float:
    """Upper end of the Wilson score interval of a rate (Wilson 1927): at fixed time, not anytime-valid."""
    if requests == 0:
        return 1.0
    z = _normal_quantile(confidence)
    rate = failures / requests
    centre = rate + z * z / (2 * requests)
    spread = z * math.sqrt(rate * (1 - rate) / requests + z * z / (4 * requests * requests))
    return min(1.0, (centre + spread) / (1 + z * z / requests))


@lru_cache(maxsize=16)
def _normal_quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
