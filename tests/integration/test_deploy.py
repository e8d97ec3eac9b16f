"""What deploy/ holds is what this program understands: every option, setting, path and figure in it exists."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client import REGISTRY

from hub import config
from hub.cli import main
from hub.observe import metrics
from protocol.message import Lane
from protocol.problems import Problem
from tests.conftest import RunningHub
from tests.support.parties import PROVINCE, VAN_YEN
from tests.support.until import until

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DATA_DIR = "/var/lib/lienthong"
POSTGRES_STOP_SECONDS = 30


def program(name: str) -> str | None:
    """Where a program is, if it is installed; administrators' folders are not in everybody's PATH."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


SYSTEMD_ANALYZE = program("systemd-analyze")
PROMTOOL = program("promtool")


# -- the command line ---------------------------------------------------------------------------


def understand(arguments: list[str], environment: dict[str, Any] | None = None) -> dict[str, Any]:
    """The settings that a command line of `lienthong` gives, as the program itself reads it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in settings():
            patch.delenv(name, raising=False)
        for name, value in (environment or {}).items():
            patch.setenv(name, str(value))
        return main.commands[arguments[0]].make_context(arguments[0], arguments[1:]).params


def settings() -> set[str]:
    """The environment variables that `lienthong serve` reads."""
    names: set[str] = set()
    for parameter in main.commands["serve"].params:
        if isinstance(parameter.envvar, str):
            names.add(parameter.envvar)
    return names


def test_every_setting_has_an_environment_variable() -> None:
    assert settings() == {"LIENTHONG_" + name.upper() for name in config.Config.__struct_fields__}


def test_an_unknown_option_would_be_noticed() -> None:
    with pytest.raises(click.NoSuchOption):
        understand(["serve", "--data-directory", "x"])


# -- the container file ---------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions in order: the keyword, and the rest as one line."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.MULTILINE)
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            keyword, _, rest = line.strip().partition(" ")
            found.append((keyword, rest.strip()))
    return found


def only(keyword: str) -> str:
    """The one instruction of a kind."""
    (found,) = [rest for name, rest in instructions() if name == keyword]
    return found


def health_command() -> list[str]:
    return json.loads(only("HEALTHCHECK").partition(" CMD ")[2])


def test_containerfile_copies_what_there_is() -> None:
    kept = [
        line[1:] for line in (DEPLOY / "Containerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    copied = []
    for keyword, rest in instructions():
        assert keyword in {
            *("FROM", "ENV", "WORKDIR", "COPY", "RUN", "LABEL", "USER", "VOLUME", "EXPOSE", "HEALTHCHECK"),
            *("ENTRYPOINT", "CMD"),
        }
        if keyword == "COPY" and not rest.startswith("--from="):
            copied += rest.split()[:-1]
    assert sorted(copied) == sorted(kept)
    for name in copied:
        assert (ROOT / name).exists(), name
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"pyproject.toml", "constraints.txt", "hub", "protocol", project["readme"]} <= set(copied)


def test_containerfile_installs_pinned_versions_on_one_python() -> None:
    bases = {rest.split()[0] for keyword, rest in instructions() if keyword == "FROM"}
    (base,) = bases
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim(-\w+)?", base)
    assert version is not None and (int(version[1]), int(version[2])) >= (3, 11)
    assert any("install -c constraints.txt ." in rest for keyword, rest in instructions() if keyword == "RUN")

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    pinned = {plain(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {plain(re.match(r"[\w.-]+", wanted)[0]) for wanted in project["dependencies"]}  # type: ignore[index]
    assert needed <= pinned


def test_container_runs_the_hub_as_nobody_special() -> None:
    user, _, group = only("USER").partition(":")
    assert user.isdigit() and group.isdigit() and int(user) > 0 and int(group) > 0
    made = next(rest for keyword, rest in instructions() if keyword == "RUN" and "useradd" in rest)
    assert f"--uid {user} --gid {group}" in made and f"groupadd --gid {group}" in made
    assert f"install -d -o {user} -g {group}" in made
    assert only("EXPOSE") == str(config.DEFAULT_PORT)
    assert only("VOLUME") == DATA_DIR
    assert json.loads(only("ENTRYPOINT")) == ["lienthong"]


def test_container_speaks_plain_http_only_when_told() -> None:
    arguments = json.loads(only("CMD"))
    given = understand(arguments)
    assert given["data_dir"] == DATA_DIR
    with pytest.raises(config.ConfigError, match="--allow-plain-http"):
        config.make(**given)
    told = config.make(**understand(arguments, {"LIENTHONG_ALLOW_PLAIN_HTTP": "1"}))
    assert not config.is_loopback(told.host) and told.port == config.DEFAULT_PORT


async def exit_status(command: list[str], port: int) -> int:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command[1:], env={"LIENTHONG_PORT": str(port)}, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


async def test_health_check_tells_a_hub_from_none(hub: RunningHub) -> None:
    command = health_command()
    assert command[0] == "python"
    assert await exit_status(command, int(hub.url.rpartition(":")[2])) == 0
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take the port
        assert await exit_status(command, closed.getsockname()[1]) != 0


# -- compose --------------------------------------------------------------------------------------


def env_example() -> dict[str, str]:
    lines = (DEPLOY / "env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def compose() -> dict[str, Any]:
    """compose.yaml as it is with the settings of env.example, filled in where that is left to do."""
    values = {name: value or "0123456789abcdef" for name, value in env_example().items()}
    text = (DEPLOY / "compose.yaml").read_text()
    return yaml.safe_load(re.sub(r"\$\{(\w+)(:[-?][^}]*)?\}", lambda match: values[match[1]], text))


def seconds(text: str) -> float:
    """A duration as compose and systemd write it."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Where a service finds what: by path in the container."""
    found = {}
    for mount in service.get("volumes", []):
        source, target, *_ = mount.split(":")
        found[target] = source
    return found


def test_compose_names_only_what_it_defines() -> None:
    document = compose()
    assert set(document["services"]) == {"postgres", "hub-a", "hub-b", "proxy"}
    for service in document["services"].values():
        assert set(service.get("depends_on", ())) <= set(document["services"])
        assert set(service["networks"]) <= set(document["networks"])
        assert service["restart"] == "unless-stopped"
        for source in mounts(service).values():
            if source.startswith("."):
                assert (DEPLOY / source).is_file()
            else:
                assert source in document["volumes"]
        for secret in service.get("secrets", ()):
            assert secret["source"] in document["secrets"]
        if "build" in service:
            assert (DEPLOY / service["build"]["context"]).resolve() == ROOT
            assert (ROOT / service["build"]["dockerfile"]).is_file()
    # The one way in is the proxy's.
    assert [name for name, service in document["services"].items() if "ports" in service] == ["proxy"]
    secret = document["secrets"]["tls"]["file"].removeprefix(".")
    ignored = (DEPLOY / ".gitignore").read_text().splitlines()
    assert any(secret.startswith(line) for line in ignored) and "/.env" in ignored


def test_compose_nodes_share_blobs_and_nothing_else() -> None:
    document = compose()
    own = set()
    for name in ("hub-a", "hub-b"):
        service = document["services"][name]
        assert set(service["environment"]) <= settings()
        made = config.make(**understand(json.loads(only("CMD")), service["environment"]))
        made.check()
        places = mounts(service)
        assert places[made.blob_dir] == "blobs"
        assert Path(made.blob_dir) not in (made.data, *made.data.parents)
        assert made.blob_dir in next(rest for _, rest in instructions() if "install -d" in rest)
        own.add(places[made.data_dir])
        assert not made.embedded and made.hub_name == env_example()["HUB_NAME"]
        assert seconds(service["stop_grace_period"]) > made.stop_seconds + 5
        assert service["depends_on"]["postgres"]["condition"] == "service_healthy"
        assert {"healthcheck", "cap_drop", "read_only"} <= set(service)
    assert len(own) == 2


def test_compose_database_is_the_one_the_hubs_ask_for() -> None:
    document = compose()
    postgres = document["services"]["postgres"]
    name, _, version = postgres["image"].partition(":")
    assert name == "postgres" and int(version) >= 16
    account = postgres["environment"]
    url = document["services"]["hub-a"]["environment"]["LIENTHONG_DATABASE_URL"]
    assert url == (
        f"postgresql://{account['POSTGRES_USER']}:{account['POSTGRES_PASSWORD']}@postgres:5432/{account['POSTGRES_DB']}"
    )
    assert postgres["healthcheck"]["test"][1] == "pg_isready"
    command = postgres["command"]
    options = dict(
        value.split("=") for flag, value in zip(command[1::2], command[2::2], strict=True) if flag == "-c"
    )
    assert not {"fsync", "synchronous_commit", "full_page_writes"} & set(options)
    # Two nodes' connections as docs/deploying.md counts them.
    assert int(options["max_connections"]) >= 14 * int(env_example()["HUB_WORKERS"]) * 2 + 20


async def test_compose_health_check_asks_for_readiness(hub: RunningHub) -> None:
    _, _, *command = compose()["services"]["hub-a"]["healthcheck"]["test"]
    port = hub.url.rpartition(":")[2]
    assert str(config.DEFAULT_PORT) in command[-1]
    asked = command[-1].replace(str(config.DEFAULT_PORT), port)
    assert await exit_status(["python", *command[:-1], asked], 0) == 0
    hub.hub.admission.closed = True
    assert await exit_status(["python", *command[:-1], asked], 0) == 1


# -- systemd --------------------------------------------------------------------------------------

HARDENING = {
    *("CapabilityBoundingSet", "LockPersonality", "MemoryDenyWriteExecute", "NoNewPrivileges", "PrivateDevices"),
    *("PrivateTmp", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname", "ProtectKernelLogs"),
    *("ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem", "RemoveIPC", "UMask"),
    *("RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    *("SystemCallArchitectures", "SystemCallErrorNumber", "SystemCallFilter"),
}
DIRECTIVES = {
    "Unit": {"Description", "Wants", "After", "StartLimitIntervalSec"},
    "Service": HARDENING
    | {"Type", "User", "Group", "EnvironmentFile", "Environment", "ExecStart", "StateDirectory"}
    | {"StateDirectoryMode", "WorkingDirectory", "Restart", "RestartSec", "KillMode", "TimeoutStopSec"}
    | {"OOMPolicy", "LimitNOFILE"},
    "Install": {"WantedBy"},
}


def unit() -> dict[str, dict[str, list[str]]]:
    """The unit's sections: the values of each directive, which may be given more than once."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (DEPLOY / "lienthong.service").read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, value = line.split("=", 1)
            section.setdefault(name, []).append(value)
    return sections


def test_unit_has_directives_that_systemd_knows() -> None:
    found = unit()
    assert {name: set(directives) for name, directives in found.items()} == DIRECTIVES


def test_unit_starts_the_hub_and_gives_it_time_to_stop() -> None:
    service = {name: values[-1] for name, values in unit()["Service"].items()}
    executable, *arguments = shlex.split(service["ExecStart"])
    assert Path(executable).name == "lienthong"
    made = config.make(**understand(arguments))
    assert made.data_dir == f"/var/lib/{service['StateDirectory']}" == service["WorkingDirectory"]
    assert service["KillMode"] == "mixed" and service["Restart"] == "always"
    assert seconds(service["TimeoutStopSec"]) > made.stop_seconds + 5 + POSTGRES_STOP_SECONDS


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    text = (DEPLOY / "lienthong.service").read_text()
    copy = tmp_path / "lienthong.service"
    # A program that is there: systemd looks for it.
    copy.write_text(text.replace("/opt/lienthong/bin/lienthong", shutil.which("true") or ""))
    assert SYSTEMD_ANALYZE is not None
    done = subprocess.run([SYSTEMD_ANALYZE, "verify", "--man=no", copy], capture_output=True, text=True)
    assert done.returncode == 0 and "lienthong.service" not in done.stderr, done.stderr


# -- what watches ---------------------------------------------------------------------------------


def exported() -> set[str]:
    """Every name under which this program exports a figure."""
    ours = {id(value) for value in vars(metrics).values()}
    collectors = REGISTRY._collector_to_names.items()
    return {name for collector, names in collectors if id(collector) in ours for name in names}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return group["rules"]


def test_alerts_ask_for_figures_that_exist() -> None:
    assert "lienthong_commit_duration_seconds_bucket" in exported()
    jobs = {job["job_name"] for job in yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]}
    for rule in rules():
        expression = rule["expr"]
        names = set(re.findall(r"\b([a-z_]+)(?=[{\[])|\b(lienthong_\w+)", expression))
        names = {name or other for name, other in names}
        assert names and names <= exported() | {"up", "probe_success"}, rule["alert"]
        assert set(re.findall(r'job="([^"]*)"', expression)) <= jobs
        assert set(re.findall(r'lane="([^"]*)"', expression)) <= {lane.label for lane in Lane}
        assert rule["labels"]["severity"] in {"page", "ticket"} and rule["annotations"]["summary"]
    assert len({rule["alert"] for rule in rules()}) == len(rules())


def counted() -> dict[str, float]:
    """How often each outcome has been counted in this process."""
    families = [*metrics.MESSAGES.collect(), *metrics.DELIVERIES.collect()]
    samples = [sample for family in families for sample in family.samples if sample.name.endswith("_total")]
    return {sample.labels["outcome"]: sample.value for sample in samples}


async def test_outcomes_in_alerts_are_counted(hub: RunningHub) -> None:
    """A label's value is declared nowhere: only a hub at work shows it."""
    before = counted()
    province = await hub.register("ubnd-tinh", PROVINCE)
    await hub.register("van-yen", VAN_YEN)
    async with province.client(hub.url) as sender:
        await sender.send(province.document(VAN_YEN, expires=datetime.now(UTC) + timedelta(hours=1)))
        await hub.connection.execute("update message set expires_at = now() where expires_at is not null")
        with pytest.raises(Problem, match=re.escape("000.99.99.H63")):
            await sender.send(province.document("000.99.99.H63"))
    for outcome in {value for rule in rules() for value in re.findall(r'outcome="([^"]*)"', rule["expr"])}:
        await until(lambda name=outcome: counted().get(name, 0) > before.get(name, 0), f"one {outcome}")


def test_prometheus_asks_the_nodes() -> None:
    document = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    for name in document["rule_files"]:
        assert (DEPLOY / name).is_file()
    targets = [target for job in document["scrape_configs"] for target in job["static_configs"][0]["targets"]]
    for node in ("hub-a", "hub-b"):
        assert node in compose()["services"]
        assert {f"{node}:{config.DEFAULT_PORT}", f"http://{node}:{config.DEFAULT_PORT}/healthz/ready"} <= set(
            targets
        )


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
def test_prometheus_finds_no_fault() -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, "check", "config", DEPLOY / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# -- the page -------------------------------------------------------------------------------------


def test_the_page_speaks_of_files_and_settings_that_exist() -> None:
    page = (ROOT / "docs" / "deploying.md").read_text()
    files = set(re.findall(r"deploy/[\w.]+\w", page))
    assert {
        "deploy/Containerfile",
        "deploy/compose.yaml",
        "deploy/lienthong.service",
        "deploy/haproxy.cfg",
    } <= files
    made_by_the_reader = {"deploy/.env", "deploy/tls"}
    for name in files - made_by_the_reader:
        assert (ROOT / name).is_file(), name
    named = set(re.findall(r"LIENTHONG_\w+", page + (DEPLOY / "lienthong.service").read_text()))
    proxy = set(re.findall(r"LIENTHONG_\w+", (DEPLOY / "haproxy.cfg").read_text()))
    assert named <= settings() | proxy
