"""Settings: checked once, and refused with the option's name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.config import Config, ConfigError, is_loopback, make
from protocol.note import COSIGNATURE, Verifier


def test_the_defaults_serve_on_loopback_with_a_database_of_its_own() -> None:
    config = make()
    assert config == Config()
    assert config.embedded
    assert (config.host, config.hub_name) == ("127.0.0.1", "lienthong")
    assert config.blobs == Path("data/blobs")
    assert config.metrics_dir == Path("data/run/metrics")
    assert config.hub_key_file == Path("data/hub-key.pem")
    assert msgspec.json.decode(config.to_json(), type=Config) == config


def test_settings_that_are_given() -> None:
    config = make(
        data_dir="/srv/liên thông",
        blob_dir="/mnt/tệp",
        database_url="postgres://hub@db/lienthong",
        name="truc.h63",
        workers=4,
        port=0,
    )
    assert not config.embedded
    assert (config.hub_name, config.workers) == ("truc.h63", 4)
    assert config.blobs == Path("/mnt/tệp")
    assert config.hub_key_file == Path("/srv/liên thông/hub-key.pem") == config.secrets_key


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"port": -1}, "--port"),
        ({"port": 65536}, "--port"),
        ({"port": "tám nghìn"}, "--port"),
        ({"workers": 0}, "--workers"),
        ({"workers": 257}, "--workers"),
        ({"max_message_bytes": 1023}, "--max-message-bytes"),
        ({"max_queue_bytes": 0}, "--max-queue-bytes"),
        ({"max_batch_messages": 0}, "--max-batch-messages"),
        ({"max_queue_seconds": 0}, "--max-queue-seconds"),
        ({"rate_messages": -1}, "--rate-messages"),
        ({"rate_bytes": "nhiều"}, "--rate-bytes"),
        ({"rate_seconds": 0}, "--rate-seconds"),
        ({"request_seconds": 0}, "--request-seconds"),
        ({"stop_seconds": -1}, "--stop-seconds"),
        ({"axis_registration": "có"}, "--axis-registration"),
        ({"axis_clock_seconds": 0}, "--axis-clock-seconds"),
        ({"axis_clock_seconds": 86_401}, "--axis-clock-seconds"),
        ({"log_within_seconds": 59}, "--log-within-seconds"),
        ({"log_within_seconds": 604_801}, "--log-within-seconds"),
        ({"secrets_key_file": "khong-co.pem"}, "--secrets-key-file"),
        ({"host": "0.0.0.0"}, "--allow-plain-http"),
        ({"host": "::"}, "--tls-cert"),
        ({"host": "truc.yenbai.gov.vn"}, "--tls-cert"),
        ({"tls_cert": "a.pem"}, "belong together"),
        ({"tls_key": "a.pem"}, "belong together"),
        ({"tls_client_ca": "ca.pem"}, "--tls-client-ca"),
        ({"tls_cert": "khong-co.pem", "tls_key": "khong-co.pem"}, "--tls-cert"),
        ({"database_url": "mysql://db"}, "--database-url"),
        ({"database_url": "db"}, "--database-url"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**settings)
    assert option in str(caught.value)
    assert "\n" not in str(caught.value)


def test_each_tls_file_must_exist(tmp_path: Path) -> None:
    file = tmp_path / "chứng thư.pem"
    file.write_text("")
    there = {"tls_cert": str(file), "tls_key": str(file), "tls_client_ca": str(file)}
    assert make(host="0.0.0.0", **there).tls_cert == str(file)
    for name in there:
        with pytest.raises(ConfigError, match="--" + name.replace("_", "-")):
            make(**(there | {name: str(tmp_path / "không có")}))


def test_plain_http_on_other_addresses_only_when_told_so() -> None:
    assert make(host="0.0.0.0", allow_plain_http=True).host == "0.0.0.0"


W1 = "so-noi-vu.yenbai.gov.vn/w1+b6e3fb73+BJs9qtokuVgvVKBwOFGotFRa/g2HF2HcUrIfjDN69Mrt"


def test_witnesses_are_an_address_and_a_key_each() -> None:
    assert make().witnesses == []
    for written in (f"https://w1.example.vn {W1}", f" https://w1.example.vn  {W1}, "):
        ((url, verifier),) = make(witness=written).witnesses
        assert (url, str(verifier)) == ("https://w1.example.vn", W1)
    other = str(Verifier("w2", Ed25519PrivateKey.generate().public_key(), COSIGNATURE))
    found = make(witness=f"https://w1.example.vn {W1} http://w2.example.vn/nhân-chứng {other}").witnesses
    assert [setting.verifier.name for setting in found] == ["so-noi-vu.yenbai.gov.vn/w1", "w2"]
    log_key = str(Verifier("log", Ed25519PrivateKey.generate().public_key()))
    for written, reason in (
        (W1, "an address and a verifier key"),
        (f"w1.example.vn {W1}", "is not an address"),
        (f"{W1} https://w1.example.vn", "is not an address"),
        (f"https://w1.example.vn {W1[:-2]}", "is not a verifier key"),
        (f"https://w1.example.vn {W1.replace('w1+', 'w2+')}", "was altered"),
        (f"https://w1.example.vn {log_key}", "one of a log"),
        (f"https://w1.example.vn {W1} https://w2.example.vn {W1}", "named twice"),
    ):
        with pytest.raises(ConfigError, match="--witness.*" + reason):
            make(witness=written)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.yenbai.gov.vn", False),
        ("", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback
