"""Judge files of any size."""

from guardreasoner.batch.run import BatchCounts, run_batch, run_here
from guardreasoner.batch.spread import run_on_ray

__all__ = ["BatchCounts", "run_batch", "run_here", "run_on_ray"]
