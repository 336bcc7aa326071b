"""What hides words and is undone before judging: one file per family of disguises."""
