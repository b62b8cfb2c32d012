"""The methods that a report singles out for its readers; everything else in it treats all methods alike."""

from collections.abc import Mapping
from typing import Final

from arbitrage.evaluation.figures.summary import Summary
from arbitrage.evaluation.running.entry import TARGET, Entry
from arbitrage.policies.spec import MethodSpec

SUBJECT: Final = Entry(MethodSpec("router"))
"""The method that this project is about. It is compared with every other method in sentences, and is the headline where
it reaches the target's accuracy."""
RSD: Final = Entry(MethodSpec("rsd"))
"""Its rival as a rule for single steps: their fastest thresholds and their wasted escalations are compared."""
TOKEN_SPECULATION: Final = Entry(MethodSpec(solver="speculative"))
"""Its rival as a way to speed up the target without loss."""
ORACLE: Final = Entry(MethodSpec("oracle"))
"""The upper bound; a share of its gain measures the subject."""
RIVALS: Final = (RSD, TOKEN_SPECULATION)
"""Compared with the subject among the figures at the top of the page."""
UNSAID: Final = frozenset({Entry(MethodSpec("draft"))})
"""Methods whose speed at the target's accuracy is left out of the sentences; tables show it."""
LARGE_POINTS: Final = frozenset({TARGET.method, TOKEN_SPECULATION.method})
"""Methods that have one point in the plot of accuracy over seconds and are compared with: drawn large."""
WITH_ADVANTAGES: Final = frozenset({ORACLE.method, SUBJECT.method, RSD.method, MethodSpec("random")})
"""Methods in the histogram of advantages: a few that escalate for different reasons."""
GREY: Final[Mapping[MethodSpec, Mapping[str, str]]] = {
    TARGET.method: {"color": "#222222", "marker": "s"},
    MethodSpec("draft"): {"color": "#777777", "marker": "o"},
    MethodSpec("random"): {"color": "#999999", "marker": ".", "linestyle": "--"},
}
"""The look of baselines in plots."""


def headline(summary: Summary) -> Entry | None:
    """The method at the top of the page: the subject, or the fastest method that one would serve.

    Returns:
        None if no such method reaches the target's accuracy.
    """
    speeds = {
        method: comparison.speedup.value
        for method in summary.methods
        if method.is_product and (comparison := summary.of(method).interpolated)
    }
    return SUBJECT if SUBJECT in speeds else max(speeds, key=lambda method: speeds[method], default=None)
