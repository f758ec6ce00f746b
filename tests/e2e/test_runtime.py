"""The runtime as its users meet it on a real node: by gRPC, in front of another engine, behind keys."""

from __future__ import annotations

import faulthandler
import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from urllib.parse import urlsplit

import grpc
import pytest

from serinus_runtime.grpc.schema import message_class
from support.eventually import eventually
from support.releases import NAME, Load, Operator, Release, failed, go_live

pytestmark = pytest.mark.needs("pods", "gateway", "prometheus")
SERVICE = "/inference.GRPCInferenceService"


class GrpcUsers:
    """One client that asks by gRPC through the gateway until it is stopped."""

    def __init__(self, release: Release) -> None:
        address = urlsplit(release.cluster.gateway_url)
        options = [("grpc.default_authority", release.host)]
        self._channel = grpc.insecure_channel(f"{address.hostname}:{address.port or 80}", options=options)
        self._infer = self._method("ModelInfer")
        self._metadata = self._method("ModelMetadata")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.versions: Counter[str] = Counter()
        self.failures: list[str] = []

    def _method(self, name: str) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(
            f"{SERVICE}/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_class(f"inference.{name}Response").FromString,
        )

    def request(self) -> object:
        """An inference request with zeros for every input of the model."""
        made = message_class("inference.ModelInferRequest")(model_name=NAME)
        for spec in self._metadata(message_class("inference.ModelMetadataRequest")(name=NAME), timeout=10).inputs:
            tensor = made.inputs.add(
                name=spec.name, datatype=spec.datatype, shape=[max(size, 1) for size in spec.shape]
            )
            count = 1
            for size in tensor.shape:
                count *= size
            if spec.datatype == "BYTES":
                tensor.contents.bytes_contents.extend([b"travel"] * count)
            else:
                tensor.contents.fp32_contents.extend([0.0] * count)
        return made

    def __enter__(self) -> GrpcUsers:
        """The route of a first version takes a moment: the first answer is waited for."""
        self._request = eventually(self.request, errors=(grpc.RpcError,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        if self._thread.is_alive():
            faulthandler.dump_traceback()
            pytest.fail(f"a gRPC call does not end; so far {dict(self.versions)}, {self.failures[-3:]}")
        self._channel.close()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            try:
                self.versions[self._infer(self._request, timeout=20).model_version] += 1
            except grpc.RpcError as error:
                self.failures.append(str(error))


def test_grpc_follows_the_weights_of_a_release(release: Release, operator: Operator, load: Load) -> None:
    """Clients of both protocols are moved by the same weights, and none of them fails."""
    go_live(release, load)
    with GrpcUsers(release) as users:
        eventually(lambda: _reached(users, "v1"))
        release.apply("v2")
        release.wait_live("v2", 300)
        eventually(lambda: _reached(users, "v2"))
    assert users.failures == []
    assert failed(load.stop()) == []


def _reached(users: GrpcUsers, version: str) -> None:
    assert users.versions[version] > 0, (users.versions, users.failures[-3:])


def _beside() -> dict[str, object]:
    """The bundled image once more, as an engine that knows nothing of what stands in front of it."""
    settings = {
        "SERINUS_HOST": "127.0.0.1", "SERINUS_HTTP_PORT": "$(SERINUS_ENGINE_PORT)", "SERINUS_METRICS_PORT": "9002",
        "SERINUS_GRPC_PORT": "off", "SERINUS_DRAIN_DELAY": "0s",
    }  # fmt: skip
    return {
        "name": "proxy",
        "queue": {"maxLength": 512, "timeout": "10s"},
        "engine": {
            "image": "serinus-runtime:dev",
            "args": ["serve"],
            "env": [{"name": name, "value": value} for name, value in settings.items()],
        },
    }


def test_an_engine_beside_is_released_like_any_other(release: Release, operator: Operator, load: Load) -> None:
    """From the bundled engine to one in a container of its own; then that engine ends, and comes back."""
    go_live(release, load)
    release.apply("v2", runtime=_beside())
    status = release.wait_live("v2", 300)
    revision = status["live"]["revision"]
    assert failed(load.stop()) == []
    pods = json.loads(release.kubectl("get", "pods", "-l", f"serving.serinus.dev/revision={revision}", "-o", "json"))
    first = pods["items"][0]["metadata"]["name"]
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    release.kubectl("exec", first, "-c", "engine", "--", "/opt/serinus/bin/python", "-c", end)

    def restarted() -> None:
        pod = json.loads(release.kubectl("get", "pod", first, "-o", "json"))
        (engine,) = [each for each in pod["status"]["initContainerStatuses"] if each["name"] == "engine"]
        assert engine["restartCount"] > 0
        assert all(each["ready"] for each in pod["status"]["containerStatuses"]), "the front found the new engine"

    eventually(restarted, 240)


def test_only_clients_with_a_key_come_in(release: Release, operator: Operator) -> None:
    """Keys lie in a Secret; one that is added later is known to running pods."""
    release.kubectl("create", "secret", "generic", "clients", "--from-literal=keys=alice s3cret-of-alice")
    release.apply("v1", runtime={"apiKeys": {"secretName": "clients"}})
    release.wait_live("v1")
    body = json.dumps({"inputs": []}).encode()

    def ask(key: str | None) -> int:
        request = urllib.request.Request(f"{release.cluster.gateway_url}/v2/models/{NAME}/infer", body)
        request.add_header("Host", release.host)
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def served() -> None:
        assert ask("s3cret-of-alice") == 400, "she comes in, and her request is checked"

    eventually(served)
    assert ask(None) == 401
    assert ask("s3cret-of-bob") == 401
    change = {"stringData": {"keys": "alice s3cret-of-alice\nbob s3cret-of-bob\n"}}
    release.kubectl("patch", "secret", "clients", "-p", json.dumps(change))
    began = time.monotonic()

    def known() -> None:
        assert ask("s3cret-of-bob") == 400

    # The kubelet looks after Secrets once a minute.
    eventually(known, 300, interval=1)
    print(f"a new key was known after {time.monotonic() - began:.0f} s")
