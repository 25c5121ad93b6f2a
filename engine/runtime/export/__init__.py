"""Write a generator for other programs: ONNX, a compiled package. For PyTorch see `engine.model.export`."""
