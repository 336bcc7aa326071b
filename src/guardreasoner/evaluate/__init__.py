"""Run a guard over benchmarks, score stored verdicts, audit reasoning, compare guards."""
