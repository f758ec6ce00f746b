"""A real Kafka broker: one node, KRaft, its jars from Maven Central in the cache. It is up in about four seconds."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import ClusterError
from cluster.packages import install
from cluster.paths import cache
from support.eventually import eventually

VERSION = "3.9.1"
_PACKAGES = {"maven": "/usr/bin/mvn", "openjdk-17-jre-headless": "/usr/lib/jvm/java-17-openjdk-amd64/bin/java"}
_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>serinus</groupId><artifactId>kafka</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>
"""
_JAVA = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]


class Broker:
    """A broker at `address`."""

    def __init__(self, address: str, process: subprocess.Popen[bytes]) -> None:
        self.address = address
        self._process = process

    def create(self, topic: str) -> None:
        """Makes a topic with one partition."""
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        client = AdminClient({"bootstrap.servers": self.address})
        made = client.create_topics([NewTopic(topic, 1, 1)])
        made[topic].result(30)

    def read(self, topic: str, count: int) -> list[bytes]:
        """The first `count` messages of a topic."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.address, "group.id": "t", "enable.auto.commit": False})
        try:
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            messages = consumer.consume(count, timeout=30)
        finally:
            consumer.close()
        return [message.value() or b"" for message in messages]

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """The broker answers nothing for the time of the context."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def broker_running(folder: Path) -> Iterator[Broker]:
    """A broker that keeps its data in `folder`. Skips where it cannot be installed because we are not root."""
    jars = _jars()
    port, controller = _free_ports()
    settings = folder / "server.properties"
    settings.write_text(
        f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={folder / "data"}
offsets.topic.replication.factor=1
num.partitions=1
auto.create.topics.enable=true
"""
    )
    java = [*_JAVA, "-cp", f"{jars}/*"]
    formatting = [*java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(settings)]
    subprocess.run(formatting, check=True, capture_output=True, timeout=60)
    with (folder / "out.log").open("wb") as out:
        process = subprocess.Popen([*java, "kafka.Kafka", str(settings)], stdout=out, stderr=out, cwd=folder)
    try:
        eventually(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close(), timeout=60)
        yield Broker(f"127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait(30)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def _jars() -> Path:
    folder = cache() / "kafka" / VERSION
    if (folder / "complete").exists():
        return folder
    try:
        install(_PACKAGES)
    except ClusterError as error:
        pytest.skip(f"no Kafka broker: {error}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pom.xml").write_text(_POM)
    goal = ["mvn", "-B", "-q", "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    subprocess.run(goal, cwd=folder, check=True, timeout=900)
    (folder / "complete").touch()
    return folder
