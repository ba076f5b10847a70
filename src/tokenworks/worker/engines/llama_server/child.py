"""The child process: llama.cpp's server with the planned parameters, until the parent goes.

Started as `python -m tokenworks.worker.engines.llama_server.child`, with the plan on its standard input.
"""

import os
import sys
from typing import Any

import msgspec

from tokenworks.worker.engines.llama_server.plan import Plan
from tokenworks.worker.engines.process import die_with_parent

SPARE_HTTP_THREADS = 256
"""Each request in the queue holds one. When none is left, health looks wait too, and a busy engine would look hung."""


def parameters(plan: Plan) -> Any:
    """xllamacpp's CommonParams."""
    import xllamacpp  # 34 MB of native code, wanted in this process only

    params = xllamacpp.CommonParams()
    params.model.path = plan.weights
    if plan.projector is not None:
        params.mmproj.path = plan.projector
    params.model_alias = {plan.model}
    params.hostnames = [plan.host]
    params.port = plan.port
    params.n_parallel = plan.slots
    params.n_ctx = plan.slots * plan.context
    params.cont_batching = True
    # Both hand one caller's prompt to another: https://github.com/ggml-org/llama.cpp/issues/27148
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    # One pool for all slots would let long requests abort the others when it is full.
    params.kv_unified = False
    params.n_batch, params.n_ubatch = plan.batch, min(plan.batch, plan.ubatch)
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads, cpu.poll = plan.threads, plan.poll
    params.n_threads_http = plan.slots + SPARE_HTTP_THREADS
    params.n_gpu_layers = plan.gpu_layers
    params.use_jinja = True
    if plan.chat_template is not None:
        params.chat_template = plan.chat_template
    params.endpoint_metrics = True
    params.endpoint_slots = params.endpoint_props = params.ui = False
    params.verbosity = plan.verbosity
    if plan.token:
        params.api_keys = [plan.token]
    return params


def main() -> int:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    die_with_parent(plan.parent)
    os.umask(0o077)
    import xllamacpp

    server = xllamacpp.Server(parameters(plan))
    sys.stdin.buffer.read()  # ends when the parent does
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main())
