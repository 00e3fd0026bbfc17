"""``ScoringConfig``: defaults, what it refuses, and that it is static."""

import jax
import numpy as np
import pytest

from hippo_jax.errors import HippoError
from hippo_jax.scoring import selectors
from hippo_jax.scoring.config import ScoringConfig


def first_tokens(context):
    return -np.arange(len(context.inputs.table.valid), dtype=np.float32)


class Unhashable:
    __hash__ = None

    def __call__(self, context):
        return None


def test_defaults():
    config = ScoringConfig()
    assert config.selector == "holistic"
    assert config.weights == (1.0, 1.0, 1.0)
    assert (config.crop, config.neighbour, config.normaliser) == (5, "previous", "minmax")
    assert (config.scope, config.specvlm_mass, config.seed) == ("global", 0.4, 0)


def test_it_is_static():
    config = ScoringConfig(selector=first_tokens, crop=7)
    assert jax.tree.leaves(config) == []
    assert hash(config) == hash(ScoringConfig(selector=first_tokens, crop=7))
    assert config != ScoringConfig(selector=first_tokens)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"selector": "best"}, "selector must be one of 'holistic', 'random', 'uniform'"),
        ({"selector": None}, "selector must be one of"),
        ({"selector": Unhashable()}, "must be hashable, Unhashable is not"),
        ({"attention": -1.0}, "attention must be a finite number of at least 0"),
        ({"temporal": float("nan")}, "temporal must be a finite number"),
        ({"spatial": float("inf")}, "spatial must be a finite number"),
        ({"spatial": True}, "spatial must be a finite number"),
        ({"spatial": "1"}, "spatial must be a finite number"),
        ({"attention": 0, "temporal": 0, "spatial": 0}, "all 0; weigh at least one"),
        ({"attention_support": "text"}, "attention_support must be one of 'visual', 'all'"),
        ({"crop": 4}, "crop must be an odd whole number of at least 3, got 4"),
        ({"crop": 1}, "crop must be an odd"),
        ({"crop": 5.0}, "crop must be an odd"),
        ({"crop": True}, "crop must be an odd"),
        ({"neighbour": "last"}, "neighbour must be one of"),
        ({"normaliser": None}, "normaliser must be one of"),
        ({"scope": ["global"]}, "scope must be one of"),
        ({"specvlm_mass": 0}, "specvlm_mass must be above 0 and at most 1"),
        ({"specvlm_mass": 1.1}, "specvlm_mass must be above 0 and at most 1"),
        ({"specvlm_mass": float("nan")}, "specvlm_mass must be a finite number"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"seed": 2**32}, "seed must be a whole number from 0"),
        ({"seed": 1.0}, "seed must be a whole number from 0"),
    ],
)
def test_refusals(keywords, words):
    with pytest.raises(HippoError, match=words) as caught:
        ScoringConfig(**keywords)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "needs", "support", "scope"),
    [
        (ScoringConfig(), (True, True, "target"), "visual", "global"),
        (ScoringConfig(scope="per_frame"), (True, True, "target"), "visual", "per_frame"),
        (ScoringConfig(attention=0), (False, True, "target"), "visual", "global"),
        (ScoringConfig(temporal=0), (True, True, "target"), "visual", "global"),
        (ScoringConfig(temporal=0, spatial=0), (True, False, "target"), "visual", "global"),
        (ScoringConfig(attention_support="all"), (True, True, "target"), "all", "global"),
        (ScoringConfig("draft", attention=0), (False, True, "draft"), "visual", "global"),
        (ScoringConfig("specvlm", scope="per_frame"), (True, False, "target"), "all", "global"),
        (
            ScoringConfig("specvlm", attention_support="visual"),
            (True, False, "target"),
            "visual",
            "global",
        ),
        (ScoringConfig("random", scope="per_frame"), (False, False, "target"), None, "per_frame"),
        (ScoringConfig("uniform", scope="per_frame"), (False, False, "target"), None, "global"),
        (ScoringConfig(first_tokens), (True, True, "target"), "visual", "global"),
    ],
)
def test_what_a_config_asks_for(config, needs, support, scope):
    assert selectors.needs(config) == needs
    assert support is None or selectors.support(config) == support
    assert selectors.scope(config) == scope
