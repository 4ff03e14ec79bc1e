"""The stock engine's verdicts: recorded ones in the normal run, the engine itself where slow tests run as well."""

import pytest

from tests.expectations.pairs import Referee


@pytest.fixture(params=["recorded", pytest.param("live", marks=pytest.mark.slow)], scope="session")
def referee(request: pytest.FixtureRequest) -> Referee:
    return Referee(ask=request.param == "live")
