"""llama.cpp's own server as a program: `python -m tests.kit.llama_server MODEL KEY_FILE`.

Serves until its standard input ends, so that it never outlives the test that started it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import xllamacpp


def main() -> None:
    model, key_file = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"tiny"}
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [Path(key_file).read_text().strip()]
    params.n_ctx = 0
    params.n_parallel = 4
    params.n_gpu_layers = 0
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.endpoint_slots = True
    params.warmup = False
    server = xllamacpp.Server(params)
    sys.stdout.write(f"listening on {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
