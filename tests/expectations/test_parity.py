"""Random tables and suites: the gate says what the stock engine says. The benchmark `parity` runs 2,000 pairs."""

import contextlib

import pytest

from tests.connect import connected
from tests.expectations.pairs import LIKE_FILES, Referee, differences, gate_of, random_pair


@contextlib.contextmanager
def as_files(spark):
    before = {name: spark.conf.get(name, None) for name in LIKE_FILES}
    for name, value in LIKE_FILES.items():
        spark.conf.set(name, value)
    yield spark
    for name, value in before.items():
        spark.conf.unset(name) if value is None else spark.conf.set(name, value)


@pytest.fixture
def like_files(spark):
    with as_files(spark):
        yield spark


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


@pytest.mark.parametrize("first", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_pairs_do_not_differ_on_spark_connect(remote, first):
    """The gate in a session of Spark Connect says what the stock engine said in a classic one."""
    with as_files(remote):
        for seed in range(first, first + (2 if first == 0 else 10)):
            pair = random_pair(seed)
            assert differences(remote, pair.table, pair.suite, Referee(ask=False)) == [], seed


def test_as_many_rules_are_compiled_on_spark_connect(spark, connect):
    def compiled(session):
        gate = gate_of(session, random_pair(0).suite)
        gate.masks(random_pair(0).table.frame(session))
        return len(gate.compiled.bits), len(gate.compiled.aggregates), len(gate.compiled.keys), gate.fallbacks

    here = compiled(spark)
    with connected(connect) as remote:
        assert compiled(remote) == here
    assert here[0] > 1
