"""ONNX: stacks of GRU layers, and whole forecasters, as models that onnxruntime runs.

onnxruntime's GRU computes in float32; onnx' own evaluator is not used, as it ignores lengths and activations.
"""

from gru_xp.interop.onnx_forecaster import from_onnx, load_onnx, save_onnx, to_onnx
from gru_xp.interop.onnx_gru import gru_from_onnx, gru_to_onnx

__all__ = ["from_onnx", "gru_from_onnx", "gru_to_onnx", "load_onnx", "save_onnx", "to_onnx"]
