"""One process of a measurement: does the jobs it is given, and nothing else.

``python -m benchmarks.worker FILE`` reads jobs as JSON on stdin and writes one line of JSON a job to FILE, as soon as
it is done; the first job that fails ends the process.
"""

import json
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from benchmarks.job import Job

MODULES = {
    "gru-xp": "benchmarks.own_gru",
    "torch": "benchmarks.torch_gru",
    "onnxruntime": "benchmarks.onnx_gru",
    "openvino": "benchmarks.openvino_gru",
    "jax": "benchmarks.jax_gru",
    "products": "benchmarks.products",
}
"""The module of each library; it has a function ``measure(job)``."""


def main() -> None:
    """Do the jobs on stdin."""
    with Path(sys.argv[1]).open("w", encoding="utf-8") as results:
        for fields in json.load(sys.stdin):
            job = Job(**{**fields, "shape": tuple(fields["shape"])})
            measurement = import_module(MODULES[job.library]).measure(job)
            print(json.dumps(asdict(measurement)), file=results, flush=True)


if __name__ == "__main__":
    main()
