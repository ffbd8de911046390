"""OpenVINO's side of ``infer``: the model of ``onnx_model.py``, compiled for the CPU and for its shapes."""

import openvino

from benchmarks.job import Array, Job, Measurement
from benchmarks.onnx_model import Run, time_model

PRECISION = "f32"
"""Left to itself, OpenVINO computes with fewer bits on CPUs that are made for it."""


def measure(job: Job) -> Measurement:
    """Do the job."""
    B, _, H, I = job.shape  # noqa: E741

    def open_model(model: bytes, steps: int) -> Run:
        core = openvino.Core()
        network = core.read_model(model)
        network.reshape({"x": [steps, B, I], "h0": [1, B, H]})
        options = {
            "INFERENCE_PRECISION_HINT": PRECISION,
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = core.compile_model(network, "CPU", options).create_infer_request()

        def run(x: Array, h0: Array) -> tuple[Array, Array]:
            results = request.infer([x, h0], share_inputs=True)
            return results[0], results[1]

        return run

    return time_model(job, open_model)
