"""Testcontainers for Python as its documentation shows it, with Ryuk's life cycle."""

import os
import subprocess
import sys
import time
import urllib.request

import docker
import pytest
from testcontainers.compose import DockerCompose
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

SERVER = "mkdir /www; echo hello > /www/index.html; echo ready; exec httpd -f -p 8000 -h /www"


def server():
    return DockerContainer("busybox:latest").with_command(["sh", "-c", SERVER]).with_exposed_ports(8000)


def read(url):
    return urllib.request.urlopen(url, timeout=10).read().decode().strip()


def test_a_port_of_a_container_is_reached():
    with server() as container:
        wait_for_logs(container, "ready", timeout=20)
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(8000)}"
        assert read(url) == "hello"


def test_logs_and_exec():
    with DockerContainer("alpine:latest").with_command(["sh", "-c", "echo out; echo err >&2; sleep 600"]) as container:
        wait_for_logs(container, "out", timeout=20)
        stdout, stderr = container.get_logs()
        assert (stdout, stderr) == (b"out\n", b"err\n")
        assert container.exec(["sh", "-c", "echo $0; exit 3"]).exit_code == 3
        assert container.exec("echo moin").output == b"moin\n"


def test_environment_volumes_and_options(tmp_path):
    (tmp_path / "file").write_text("given")
    container = (
        DockerContainer("busybox:latest")
        .with_env("KEY", "value")
        .with_volume_mapping(str(tmp_path), "/given", "ro")
        .with_command(["sleep", "600"])
        .with_kwargs(mem_limit="64m", labels={"mine": "yes"})
    )
    with container:
        assert container.exec(["sh", "-c", "echo $KEY; cat /given/file"]).output == b"value\ngiven"
        assert container.get_wrapped_container().attrs["HostConfig"]["Memory"] == 64 << 20


def test_containers_of_a_network_reach_each_other_by_alias():
    with Network() as network:
        with server().with_network(network).with_network_aliases("web") as web:
            wait_for_logs(web, "ready", timeout=20)
            client = DockerContainer("busybox:latest").with_command(["sleep", "600"]).with_network(network)
            with client:
                assert client.exec(["wget", "-qO-", "http://web:8000"]).output == b"hello\n"


def test_an_image_is_built(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM busybox:latest\nRUN echo built > /built\nCMD cat /built && sleep 600\n")
    with DockerImage(path=tmp_path, tag="testcontainers-built:1") as image:
        with DockerContainer(str(image)) as container:
            wait_for_logs(container, "built", timeout=20)
    with pytest.raises(docker.errors.ImageNotFound):
        docker.from_env().images.get("testcontainers-built:1")


def test_a_compose_project(tmp_path):
    (tmp_path / "docker-compose.yml").write_text(
        f"""
version: '3'
services:
  web:
    image: busybox:latest
    command: ["sh", "-c", {SERVER!r}]
    ports: ["8000"]
"""
    )
    # There is no second version of Compose here: the first one does not know `compose`.
    first = tmp_path / "docker"
    first.write_text('#!/bin/sh\nshift\nexec docker-compose "$@"\n')
    first.chmod(0o755)
    with DockerCompose(str(tmp_path), docker_command_path=str(first), wait=False):
        found = docker.from_env().containers.list(filters={"label": "com.docker.compose.service=web"})
        assert len(found) == 1
        port = found[0].ports["8000/tcp"][0]["HostPort"]
        for _ in range(100):
            try:
                assert read(f"http://localhost:{port}") == "hello"
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError("the port is not reached")


LEFT_BEHIND = """
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
network = Network().create()
container = DockerContainer("busybox:latest").with_command(["sleep", "600"]).with_network(network).start()
print(container.get_wrapped_container().id, network.id, flush=True)
import os
os._exit(0)
"""


def test_ryuk_removes_what_a_killed_test_leaves_behind():
    assert not testcontainers_config.ryuk_disabled
    environment = dict(os.environ, RYUK_RECONNECTION_TIMEOUT="2s")
    output = subprocess.run([sys.executable, "-c", LEFT_BEHIND], env=environment, check=True, stdout=subprocess.PIPE)
    container, network = output.stdout.decode().split()
    client = docker.from_env()
    client.networks.get(network)
    end = time.monotonic() + 40
    while time.monotonic() < end:
        left = [c.id for c in client.containers.list(all=True)] + [n.id for n in client.networks.list()]
        if container not in left and network not in left:
            break
        time.sleep(0.2)
    else:
        raise AssertionError("they are still there")
