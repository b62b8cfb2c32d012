"""An engine in this process: sessions share its weights and its device's thread."""

import abc

from arbitrage.core.types import Problem, Source
from arbitrage.engines.language_model import LanguageModel
from arbitrage.engines.session import LocalSession


class LocalEngine(LanguageModel, abc.ABC):
    """A language model in this process as an engine; sessions share its weights and its device's thread."""

    async def open(self, problem: Problem, source: Source) -> LocalSession:
        """Start a session; nothing is computed before the first proposal.

        Raises:
            ContextOverflow: If the prompt leaves no room for an answer.
        """
        return LocalSession(self, self.prompt_ids(problem), source)
