"""A model server as a process of its own, to be killed: ``python upstream.py PORT SECONDS STEPS``.

It answers as SGLang does. STEPS is JSON: the ids of each step of the only answer that it knows. It writes the first
step that is not at the end of what it is given, after some seconds.
"""

import asyncio
import json
import sys
from typing import Any

from servers import LocalServer


def next_step(ids: list[int], steps: list[list[int]]) -> int:
    """How many steps stand at the end of a prompt."""
    for number in range(len(steps) - 1, 0, -1):
        past = [token for step in steps[:number] for token in step]
        if ids[-len(past) :] == past:
            return number
    return 0


async def main(port: int, seconds: float, steps: list[list[int]]) -> None:
    """Serve until killed."""

    async def answer(path: str, body: Any) -> dict[str, Any]:
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": "stub", "max_model_len": 512}]}
        await asyncio.sleep(seconds)
        number = next_step(body["input_ids"], steps)
        new, is_last = steps[number], number == len(steps) - 1
        reason = {"type": "stop", "matched": new[-1] if is_last else "\n\n"}
        info = {"finish_reason": reason, "prompt_tokens": len(body["input_ids"]), "cached_tokens": 0}
        info["output_token_logprobs"] = [[-0.1, token, None] for token in new]
        return {"text": "", "output_ids": new, "meta_info": info}

    server = await asyncio.start_server(LocalServer(answer).serve, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), json.loads(sys.argv[3])))
