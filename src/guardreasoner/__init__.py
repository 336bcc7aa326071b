"""GuardReasoner: a guard for LLM applications.

from guardreasoner import load_guard

guard = load_guard()
print(guard.check("How do I kill a Python process?"))
"""

from guardreasoner.errors import ConfigError, DataError, EngineError, GuardReasonerError
from guardreasoner.guards.base import Guard, Judging
from guardreasoner.guards.load import load_guard
from guardreasoner.types import Example, Exchange, Labels, Message, Step, Task, Usage, Verdict

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "DataError",
    "EngineError",
    "Example",
    "Exchange",
    "Guard",
    "GuardReasonerError",
    "Judging",
    "Labels",
    "Message",
    "Step",
    "Task",
    "Usage",
    "Verdict",
    "load_guard",
]
