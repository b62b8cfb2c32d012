"""Likelihoods behind SGLang: a server of ours answers as its source (0.5.23) says; the real one needs a GPU."""

import pytest

from arbitrage.core.errors import EngineError
from arbitrage.core.types import Problem, Source
from arbitrage.engines.dialects import SGLang
from arbitrage.engines.hf import HFEngine
from arbitrage.engines.http import HTTPEngine
from arbitrage.engines.http_client import HTTPClient
from helpers import candidate, opened, request
from servers import SGLangServer, local_server

PROBLEM = Problem(id="p", question="Mia has 3 stamps and 21 marbles. How many things does Mia have?")
STEPS = ["Leo has 14 stamps.\n\n", "Mia has 14*3=42 stamps.\n\n", "So 5+90=95.\n\n"]


@pytest.fixture
def server(random_lm, tokenizer):
    return SGLangServer(random_lm(3), tokenizer, "model")


def engine(url, tokenizer, server):
    return HTTPEngine(HTTPClient(url), SGLang(), tokenizer, name="model", context_length=server.context_length)


async def test_a_step_is_read_without_computing_its_prefix_again(server, random_lm, tokenizer):
    """The last token of the prefix and the step go through the model, however long the context is."""
    alone = HFEngine(random_lm(3), tokenizer, name="model")
    async with (
        local_server(server) as local,
        opened(engine(local.url, tokenizer, server), PROBLEM) as session,
        opened(alone, PROBLEM) as plain,
    ):
        await session.propose(request(1))
        for text in STEPS:
            step = candidate(text)
            read, wanted = await session.likelihood(step), await plain.likelihood(step)
            assert read.logprobs == pytest.approx(wanted.logprobs, abs=1e-4)
            num_ids, num_step = len(session.token_ids), len(read.logprobs)
            assert (read.cost.num_computed, read.cost.num_cached) == (num_step + 1, num_ids - 1)
            assert server.num_computed[-1] == read.cost.num_computed
            assert local.requests[-1][1]["logprob_start_len"] == num_ids - 1
            for one in (session, plain):
                await one.commit(step)


async def test_a_step_that_was_read_is_cached_for_the_next_one(server, tokenizer):
    async with local_server(server) as local, opened(engine(local.url, tokenizer, server), PROBLEM) as session:
        step = candidate(STEPS[0])
        await session.likelihood(step)
        await session.commit(step)
        assert (await session.propose(request(4))).cost.num_computed == 1


async def test_log_probabilities_of_other_tokens_are_refused(server, tokenizer):
    def shifted(path, body):
        answer = server(path, body)
        answer["meta_info"]["input_token_logprobs"].pop()
        return answer

    async with local_server(shifted) as local, opened(engine(local.url, tokenizer, server), PROBLEM) as session:
        with pytest.raises(EngineError, match=r"an answer of sglang cannot be read.* those of other tokens"):
            await session.likelihood(candidate(STEPS[0], Source.DRAFT))
