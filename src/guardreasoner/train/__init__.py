"""The stages of training: synthesize, sft, sample, mine, dpo, export. They meet in files, never in imports."""
