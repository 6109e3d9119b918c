"""One loaded model under load: many threads, batches of all sizes, always the same answers, no memory lost."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tfp_vae
from tests import c_api
from tests.served_models import assert_all_close
from tests.servers import BASE

SIZES = (1, 2, 3, 8, 17, 32, 128)
THREADS, REQUESTS = 8, 2000
# What a request may leave behind on average: less than one row of x.
MOST_BYTES = THREADS * REQUESTS * 256


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(params=["loaded in Python", "C++ session"])
def encode(request):
    if request.param == "C++ session":
        with c_api.Session(BASE / "1") as session:
            yield lambda x: session.run("encode", x=x)
    else:
        served = tfp_vae.load(BASE)
        yield lambda x: {name: value.numpy() for name, value in served.call("encode", x=x).items()}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to measure memory")
@pytest.mark.rows(0, 1)
def test_threads_get_the_same_answers_and_leave_nothing_behind(encode, digits):
    x = np.float32(digits.train[:128])
    expected = {size: encode(x[:size]) for size in SIZES}
    for size in SIZES:
        assert_all_close(
            expected[size], {name: value[:size] for name, value in expected[128].items()}
        )

    def ask(thread: int, requests: int) -> int:
        random, wrong = np.random.default_rng(thread), 0
        for size in random.choice(SIZES, requests):
            answer = encode(x[:size])
            wrong += any((answer[name] != value).any() for name, value in expected[size].items())
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        # Buffers grow to their size.
        assert sum(pool.map(lambda thread: ask(thread, 200), range(THREADS))) == 0
        before = resident_bytes()
        assert sum(pool.map(lambda thread: ask(thread, REQUESTS), range(THREADS))) == 0
        assert resident_bytes() - before < MOST_BYTES
