"""onnxruntime's side of ``infer``: a model with one GRU node, for the CPU; ``forward``, and ``stream`` with T = 1."""

import onnxruntime

from benchmarks.job import Array, Job, Measurement
from benchmarks.onnx_model import Run, time_model


def measure(job: Job) -> Measurement:
    """Do the job."""

    def open_model(model: bytes, steps: int) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def run(x: Array, h0: Array) -> tuple[Array, Array]:
            h, h_last = session.run(None, {"x": x, "h0": h0})
            return h, h_last

        return run

    return time_model(job, open_model)
