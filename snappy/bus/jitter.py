"""Chance for waits: forked processes do not draw the same numbers, and a caller's ``random.seed`` changes nothing."""

from __future__ import annotations

from random import SystemRandom

_system = SystemRandom()


def between(low: float, high: float) -> float:
    """A number from ``low`` to ``high``, each as likely."""
    return _system.uniform(low, high)
