"""TorchServe 0.12 itself, without authorisation or access log, which is its fastest; batching from BENCH_TS_*."""

import json
import os
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[3]
sys.path[:0] = [str(TESTS)]

from bench.runtime import torchmodels  # noqa: E402
from support import torchroot  # noqa: E402

root = torchroot.ensure()
folder = torchmodels.make(Path(sys.argv[1]), "torchserve")
port = int(sys.argv[2])
home = Path(tempfile.mkdtemp())
size, delay = int(os.environ["BENCH_TS_BATCH"]), int(os.environ["BENCH_TS_DELAY"])
model = {"defaultVersion": True, "marName": "model.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": size,
         "maxBatchDelay": delay, "responseTimeout": 60}  # fmt: skip
(home / "config.properties").write_text(
    f"inference_address=http://127.0.0.1:{port}\nmanagement_address=http://127.0.0.1:{port + 1}\n"
    f"metrics_address=http://127.0.0.1:{port + 2}\ngrpc_inference_address=127.0.0.1\ngrpc_inference_port=0\n"
    "grpc_management_address=127.0.0.1\ngrpc_management_port=0\ndisable_token_authorization=true\n"
    "disable_system_metrics=true\njob_queue_size=1000\nnumber_of_netty_threads=2\nnetty_client_threads=2\n"
    f"model_store={folder}\nload_models=model=model.mar\n"
    f"models={json.dumps({'model': {'1.0': model}}, separators=(',', ':'))}\n"
)
(home / "log4j2.xml").write_text(
    '<Configuration><Appenders><Console name="c"/></Appenders><Loggers><Root level="error">'
    '<AppenderRef ref="c"/></Root></Loggers></Configuration>'
)
os.chdir(home)
os.environ |= {"PYTHONPATH": str(root.torchserve), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
command = [str(root.java), f"-Djava.io.tmpdir={home}", f"-Dlog4j.configurationFile=file://{home}/log4j2.xml",
           f"-Dmodel_server_home={root.torchserve}", "-cp", f"{root.torchserve}/ts/frontend/*",
           "org.pytorch.serve.ModelServer", "--python", str(root.python), "-f", "config.properties", "-s", str(folder),
           "-ncs"]  # fmt: skip
os.execv(command[0], command)
