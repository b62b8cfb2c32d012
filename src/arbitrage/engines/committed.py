"""Token ids of one session: its prompt, and the steps that were committed behind it."""

from collections.abc import Iterable, Sequence


class CommittedIds(list[int]):
    """Ids that grow and shrink by whole steps."""

    def __init__(self, prompt_ids: Iterable[int]) -> None:
        super().__init__(prompt_ids)
        self._starts: list[int] = []

    @property
    def num_steps(self) -> int:
        """Committed steps."""
        return len(self._starts)

    def commit(self, ids: Sequence[int]) -> None:
        """Append a step."""
        self._starts.append(len(self))
        self.extend(ids)

    def rewind(self, num_steps: int) -> None:
        """Take back the last ``num_steps`` steps."""
        if num_steps:
            del self[self._starts[-num_steps] :]
            del self._starts[-num_steps:]
