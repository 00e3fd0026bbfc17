"""What the tests of a run share; its programs are compiled once for all tests of a worker."""

import pytest
from support.tiny_replicas import tiny_replicas

from hippo_jax.evaluation.replicas import Replicas


@pytest.fixture(scope="package")
def replicas() -> Replicas:
    return tiny_replicas()
