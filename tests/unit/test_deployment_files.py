"""What docker/ says fits what the program is: cheap checks of the files; docker/smoke-test.sh runs them."""

import os
import re
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # PyYAML has no types

from marketflow.config import Settings, load_settings
from marketflow.config.model import ENV_PREFIX

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"


class _Compose(yaml.SafeLoader):  # type: ignore[misc]  # as above
    """Reads compose files, which mark what an override takes away."""


_Compose.add_constructor("!reset", lambda _loader, _node: None)


def _yaml(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.load(path.read_text(), Loader=_Compose)  # noqa: S506 - a safe loader
    return loaded


COMPOSE = _yaml(DOCKER / "docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
LASTING = {name: service for name, service in SERVICES.items() if name != "secrets"}
DEPLOYMENT = _yaml(KUBERNETES / "deployment.yaml")
TOML_FILES = {
    "compose": (DOCKER / "marketflow.toml").read_text(),
    "kubernetes": _yaml(KUBERNETES / "configmap.yaml")["data"]["marketflow.toml"],
}


# --- locks ---


def _pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / name).read_text()
    entries = re.split(r"\n(?=\S)", text)
    assert all("--hash=sha256:" in entry for entry in entries)
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_the_image_has_what_is_tested_and_no_servers() -> None:
    run, image, build = _pins("run.txt"), _pins("image.txt"), _pins("build.txt")

    assert {**image, **build}.items() <= run.items()
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    required = {_package(line) for line in config["options"]["install_requires"].strip().splitlines()}
    embedded = {_package(line) for line in config["options.extras_require"]["embedded"].strip().splitlines()}
    assert required <= image.keys()
    assert not embedded & image.keys()


def _package(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9_-]+", requirement)
    assert match is not None
    return match[0].lower().replace("_", "-")


# --- configuration ---


@pytest.mark.parametrize("where", TOML_FILES)
def test_the_configuration_is_accepted(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    text = re.sub(r'"/run/secrets/(?:marketflow/)?(\w+)"', rf'"{tmp_path}/\1"', TOML_FILES[where])
    (tmp_path / "admin_token").write_text("token\n")
    (tmp_path / "redis_url").write_text("redis://marketflow:secret@valkey:6379/0\n")
    (tmp_path / "postgres_dsn").write_text("postgresql://marketflow:secret@postgres:5432/marketflow\n")
    file = tmp_path / "marketflow.toml"
    file.write_text(text)

    settings = load_settings(file)

    assert settings.server.admin_token.get_secret_value() == "token"
    assert settings.server.workers == 1
    assert settings.mode.initial == "live"
    assert [exchange.port for exchange in settings.live.exchanges] == [40101, 40102, 40103]


def test_variables_that_are_set_are_settings() -> None:
    known = {"MARKETFLOW_CONFIG"} | {
        f"{ENV_PREFIX}{section}__{key}".upper()
        for section, field in Settings.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    }
    container = DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]
    unit = (DOCKER / "systemd" / "marketflow.service").read_text()
    used = {
        *SERVICES["marketflow"]["environment"],
        *SERVICES["node"]["environment"],
        *_yaml(DOCKER / "docker-compose.exchanges.yml")["services"]["marketflow"]["environment"],
        *(variable["name"] for variable in container["env"]),
        *re.findall(r"^Environment=(\w+)=", unit, re.MULTILINE),
        *re.findall(r"\b(MARKETFLOW_\w+)=", (DOCKER / "Dockerfile").read_text()),
    }
    assert used <= known


def test_the_example_lists_what_can_be_set_with_its_default() -> None:
    files = [DOCKER / "docker-compose.yml", DOCKER / "docker-compose.exchanges.yml"]
    used = {match for file in files for match in re.findall(r"\$\{(\w+):-([^}]*)\}", file.read_text())}
    listed = re.findall(r"^#(\w+)=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    assert sorted(used) == sorted(listed)


# --- compose ---


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not service.get("privileged")
    assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys()
    assert "build" in service or service["user"] not in {"root", "0", "0:0"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    secrets = re.compile(r"PASSWORD$|TOKEN$|URL$|DSN$")
    assert not [variable for variable in service.get("environment", {}) if secrets.search(variable)]


@pytest.mark.parametrize("name", LASTING)
def test_a_service_is_watched_and_comes_back(name: str) -> None:
    service = LASTING[name]
    assert service["restart"] == "unless-stopped"
    # Of our own image, the Dockerfile says how.
    assert "healthcheck" in service or service["image"].startswith("${MARKETFLOW_IMAGE")


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "build" not in service])
def test_images_of_others_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?-[a-z]+(@sha256:[0-9a-f]{64})?", SERVICES[name]["image"])


def test_backends_are_waited_for() -> None:
    conditions = {name: wait["condition"] for name, wait in SERVICES["marketflow"]["depends_on"].items()}
    assert conditions["valkey"] == conditions["postgres"] == "service_healthy"
    assert conditions["secrets"] == "service_completed_successfully"
    assert set(COMPOSE["networks"]) >= {"data"}
    assert all(SERVICES[name]["networks"] == ["data"] for name in ("valkey", "postgres"))
    assert COMPOSE["networks"]["data"]["internal"] is True


@pytest.mark.parametrize("number", [1, 2, 3])
def test_an_exchange_runs_its_source(number: int) -> None:
    service = SERVICES[f"exchange{number}"]
    (command,) = service["command"]
    script = (ROOT / command.removeprefix("/app/")).read_text()
    assert f"${{LISTEN_PORT:-{40100 + number}}}" in script
    assert service["healthcheck"]["test"] == ["CMD", "healthcheck", str(40100 + number)]


def test_the_build_sees_what_it_copies() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    copied = re.findall(r"^COPY (?!--from)(?:--\S+ )?(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert len(sources) > 8
    assert sorted(f"!{source}" for source in sources) == sorted(line for line in ignore if line.startswith("!"))
    assert all((ROOT / source).exists() for source in sources)


# --- kubernetes ---


def test_kubernetes_asks_the_right_questions_of_an_unprivileged_container() -> None:
    pod = DEPLOYMENT["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert f"--uid {pod['securityContext']['runAsUser']} " in (DOCKER / "Dockerfile").read_text()
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_secret_has_what_the_configuration_reads() -> None:
    (mounted,) = [
        mount["mountPath"]
        for mount in DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "secrets"
    ]
    read = re.findall(rf'"{mounted}/(\w+)"', TOML_FILES["kubernetes"])
    assert sorted(_yaml(KUBERNETES / "secret.example.yaml")["stringData"]) == sorted(read)


def test_the_service_finds_the_pods() -> None:
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    service = _yaml(KUBERNETES / "service.yaml")["spec"]
    assert service["selector"].items() <= labels.items()
    ports = DEPLOYMENT["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert service["ports"][0]["targetPort"] in [port["name"] for port in ports]
    resources = _yaml(KUBERNETES / "kustomization.yaml")["resources"]
    assert sorted(resources) == sorted(
        file.name
        for file in KUBERNETES.glob("*.yaml")
        if file.name not in {"kustomization.yaml", "secret.example.yaml", "secret.yaml"}
    )


# --- the health check ---


@contextmanager
def _answering(status: bytes) -> Iterator[int]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if self.rfile.readline().startswith(b"GET /health/ready "):
                self.wfile.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _healthcheck(port: int, *arguments: str) -> int:
    command = [sys.executable, "-IS", str(DOCKER / "healthcheck.py"), *arguments]
    environment = {"MARKETFLOW_SERVER__PORT": str(port)}
    return subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False).returncode


@pytest.mark.parametrize(("status", "expected"), [(b"200 OK", 0), (b"503 Service Unavailable", 1), (b"", 1)])
def test_the_health_check_passes_on_the_answer(status: bytes, expected: int) -> None:
    with _answering(status) as port:
        assert _healthcheck(port) == expected
        assert _healthcheck(1, str(port)) == 0


def test_the_health_check_fails_where_nobody_listens() -> None:
    with _answering(b"200 OK") as port:
        pass
    assert _healthcheck(port) == 1
    assert _healthcheck(port, str(port)) == 1
