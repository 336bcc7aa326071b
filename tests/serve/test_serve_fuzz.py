"""A thousand random requests over every wire (`bench/fuzz.py` asks twenty thousand)."""

import asyncio
import importlib.util
import random
from functools import partial
from pathlib import Path

from guardreasoner.guards.load import load_guard
from serve.running import serving

FUZZ = Path(__file__).parents[2] / "bench" / "fuzz.py"
REQUESTS = 1000


def test_a_flagged_word_reaches_neither_upstream_nor_client_and_nothing_breaks():
    spec = importlib.util.spec_from_file_location("fuzz", FUZZ)
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")

    async def run():
        upstream = fuzz.Upstream(seed)
        listening = await asyncio.start_server(upstream.serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        policy = {"proxy": {"upstream": f"http://127.0.0.1:{port}/v1"}, "deadline_s": 20}
        with serving(policy, guard=partial(load_guard, f"{FUZZ}:Finds"), wait=False) as served:
            while not served.core.ready:
                await asyncio.sleep(0.05)
            found = await fuzz.fuzz(served.url, seed, REQUESTS)
        listening.close()
        return upstream, found

    upstream, found = asyncio.run(run())
    assert sum(found["codes"].values()) == REQUESTS
    assert upstream.asked > REQUESTS / 20
    assert not found["wrong"], f"seed {seed}: {found['wrong'][0]}"
    assert not upstream.leaks, f"seed {seed}: {upstream.leaks[0]}"
