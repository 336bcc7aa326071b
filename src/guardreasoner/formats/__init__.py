"""Answer formats, one module each, found by file name: `Options`, `render` and `parse` (the contract is in `base`)."""
