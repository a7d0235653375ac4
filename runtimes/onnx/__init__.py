"""The engine ONNX Runtime, with and without gradients."""
