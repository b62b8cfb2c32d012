"""The entries of a comparison: a method, and its run where several runs are compared."""

from dataclasses import dataclass, replace
from typing import Final

from arbitrage.policies.spec import MethodSpec
from arbitrage.policies.table import Standing

RUN_SEPARATOR: Final = " · "
"""Between method and run in labels, where several runs are shown together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a comparison: a method at its threshold."""

    method: MethodSpec
    run: str = ""
    """Name of its run; empty where only one run is shown."""

    @property
    def policy(self) -> str:
        """The method's name without its threshold, and its run."""
        return self._with_run(self.method.name)

    @property
    def threshold(self) -> float | None:
        """The method's threshold."""
        return self.method.threshold

    @property
    def label(self) -> str:
        """The method as a user writes it, such as ``router@0.3``, and its run."""
        return self._with_run(str(self.method))

    @property
    def group(self) -> "Entry":
        """The same method without its threshold: the group of all its thresholds in a sweep."""
        return replace(self, method=replace(self.method, threshold=None))

    @property
    def is_product(self) -> bool:
        """Whether the method can be served: it is neither a baseline nor an upper bound."""
        return self.method.standing is Standing.PRODUCT

    @property
    def is_baseline(self) -> bool:
        """Whether the method is only compared with: a single model, or chance."""
        return self.method.standing is Standing.BASELINE

    @property
    def is_bound(self) -> bool:
        """Whether the method is an upper bound: it needs information that a served method does not have."""
        return self.method.standing is Standing.BOUND

    @classmethod
    def recorded(cls, policy: str, threshold: float | None = None) -> "Entry":
        """The entry of a trace that was written earlier; see :meth:`MethodSpec.recorded`."""
        return cls(MethodSpec.recorded(policy, threshold))

    def _with_run(self, text: str) -> str:
        return f"{text}{RUN_SEPARATOR}{self.run}" if self.run else text


TARGET: Final = Entry(MethodSpec("target"))
"""Target-only: the reference of accuracy and speed."""
