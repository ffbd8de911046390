"""``conformance``: our GRU held against PyTorch, Keras, ONNX, finite differences and itself in other namespaces."""
