"""The file that stands beside LiteLLM's config in the test: our guardrail with the scripts' guard."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from script_guard import Words

from guardreasoner.integrations.litellm import GuardReasoner


class WordGuardReasoner(GuardReasoner):
    """Only so that the test needs no weights."""

    def __init__(self, **settings):
        super().__init__(Words(), **settings)
