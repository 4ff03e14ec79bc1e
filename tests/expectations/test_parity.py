"""Random tables and suites: the gate says what the stock engine says. The benchmark `parity` runs 2,000 pairs."""

import pytest

from tests.expectations.pairs import LIKE_FILES, differences, random_pair


@pytest.fixture
def like_files(spark):
    before = {name: spark.conf.get(name, None) for name in LIKE_FILES}
    for name, value in LIKE_FILES.items():
        spark.conf.set(name, value)
    yield spark
    for name, value in before.items():
        spark.conf.unset(name) if value is None else spark.conf.set(name, value)


@pytest.mark.parametrize("seed", [1001844])
def test_pairs_that_once_differed_do_no_more(like_files, referee, seed):
    pair = random_pair(seed)
    assert differences(like_files, pair.table, pair.suite, referee) == []


@pytest.mark.parametrize("first", [0, pytest.param(6, marks=pytest.mark.slow)])
def test_random_pairs_do_not_differ(like_files, referee, first):
    for seed in range(first, first + 6):
        pair = random_pair(seed)
        assert differences(like_files, pair.table, pair.suite, referee) == [], (
            f"tests.benchmarks.parity.tell({seed}) shows it"
        )
