"""``conformance``: compare our GRU with PyTorch, Keras, ONNX and onnxruntime."""
