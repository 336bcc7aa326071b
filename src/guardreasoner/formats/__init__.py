"""Answer formats: one module each, two functions each, `render` and `parse`."""
