"""A trained checkpoint to an ONNX folder that runs without torch."""
