"""Evaluation: run a guard over benchmarks, score stored verdicts, audit reasoning, report."""
