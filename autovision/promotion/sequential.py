"""Tests that may be looked at as often as one likes: what they say holds at all times at once.

A test of a fixed size that is looked at after every request is wrong far more often than it says. These rest on
mixtures of likelihood ratios, which under the null hypothesis are martingales, so that the probability that one ever
rises above 1 / level is at most that level (Ville 1939; Robbins 1970; Howard et al. 2021).
"""

from __future__ import annotations

import math

from scipy.special import betainc, betaln

_PRIOR = 0.5
"""both parameters of the beta distribution that shares are mixed over: Jeffreys'"""
_HALVINGS = 40


def share_bounds(successes: int, n: int, level: float) -> tuple[float, float]:
    """Bounds of a share, which hold at all times together with probability 1 - `level`.

    Those shares against which the mixture of all others has not gathered enough evidence.
    """
    return _bound(successes, n, level, 0.0), _bound(successes, n, level, 1.0)


def share_is_larger(
    successes: int, n: int, than_successes: int, than_n: int, *, margin: float, level: float
) -> bool:
    """Whether a share is larger than another one by more than a margin.

    Where it is not, the answer is ever yes with probability `level` at most.
    """
    if not n or not than_n or successes / n <= than_successes / than_n + margin:
        return False  # what was seen lies within both bounds
    low = _bound(successes, n, level / 2, 0.0)
    return low > _bound(than_successes, than_n, level / 2, 1.0) + margin


def loses_more(lost: int, gained: int) -> float:
    """Evidence that of pairs which differ more are lost than won: at most `level` with 1 / `level` or more, ever.

    The mixture of all shares of losses above one half, against one half: a sign test that may be looked at any time.
    """
    n = lost + gained
    above = 1.0 - float(betainc(lost + 1, gained + 1, 0.5))
    if above <= 0.0:
        return 0.0
    log_evidence = (n + 1) * math.log(2) + float(betaln(lost + 1, gained + 1)) + math.log(above)
    return math.exp(min(log_evidence, 700.0))


def _log_likelihood(successes: int, n: int, share: float) -> float:
    failures = n - successes
    if (share <= 0.0 and successes) or (share >= 1.0 and failures):
        return -math.inf
    return (successes * math.log(share) if successes else 0.0) + (
        failures * math.log1p(-share) if failures else 0.0
    )


def _bound(successes: int, n: int, level: float, outside: float) -> float:
    """Where the shares that are excluded end, coming from 0 or from 1."""
    if n == 0:
        return outside
    mixed = betaln(_PRIOR + successes, _PRIOR + n - successes) - betaln(_PRIOR, _PRIOR)
    limit = math.log(1 / level)

    def excluded(share: float) -> bool:
        return bool(mixed - _log_likelihood(successes, n, share) >= limit)

    if not excluded(outside):
        return outside
    inside = successes / n
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside
