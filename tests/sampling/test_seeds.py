"""The samples' seeds are NumPy's own, for any seed and number, and quick."""

import time

import numpy as np
import pytest

from gradscope.errors import GradscopeError
from gradscope.sampling.seeds import sample_seeds


def by_numpy(seed, samples):
    words = [np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0] for i in samples]
    return (np.array(words, dtype=np.uint64) >> np.uint64(1)).astype(np.int64)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", [0, 1, 7, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**64 - 1, 2**100 + 17, 2**200 + 3])
@pytest.mark.parametrize("samples", [range(0), range(5), range(65530, 65545), [0, 3, 2**32 - 1], range(70000)[::7000]])
def test_they_are_those_of_seed_sequence(seed, samples):
    found = sample_seeds(seed, samples)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, by_numpy(seed, samples))


def test_bad_numbers_are_refused():
    with pytest.raises(GradscopeError, match=r"first_sample: samples are numbered up to 4294967295, got 4294967296"):
        sample_seeds(0, range(2**32 - 1, 2**32 + 1))
    with pytest.raises(GradscopeError, match="seed"):
        sample_seeds(-1, range(2))


def test_a_million_are_quick():
    """NumPy one by one takes ten seconds for a million; ten million take 0.9 s of one core here."""
    start = time.process_time()
    sample_seeds(3, range(10**6))
    assert time.process_time() - start < 1
