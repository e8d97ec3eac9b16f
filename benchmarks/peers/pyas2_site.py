"""A django-pyas2 station: settings, addresses, and the commands that fill its database.

Runs in django-pyas2's own environment (pyas2_requirements.txt), where of this project only this folder's modules
without dependencies can be imported. A station is described by the JSON in the environment variable ``STATION``:
``database`` and ``host`` (a directory of sockets) of its PostgreSQL, ``folder`` for its files.

    python -m benchmarks.peers.pyas2_site < partners.json      migrate, and enter organizations and partners
    gunicorn "benchmarks.peers.pyas2_site:application()"        receive
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

_STATION: dict[str, str] = json.loads(os.environ["STATION"])

SECRET_KEY = "a station of a benchmark on loopback"
ALLOWED_HOSTS = ["127.0.0.1"]
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "pyas2"]
MIDDLEWARE: list[str] = []
ROOT_URLCONF = "benchmarks.peers.pyas2_site"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _STATION["database"],
        "HOST": _STATION["host"],
        "USER": "lienthong",
        "CONN_MAX_AGE": None,  # connections are kept
    }
}
MEDIA_ROOT = _STATION["folder"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
}


def prepare() -> None:
    """Make Django ready. Call it first."""
    # oscrypto 1.3 reads OpenSSL's version with one digit after the last point, and fails on a system that has
    # 3.0.10 or later. psycopg's wheel brings an OpenSSL that it can read.
    spec = importlib.util.find_spec("psycopg_binary")
    assert spec is not None and spec.origin is not None
    libraries = Path(spec.origin).parents[1] / "psycopg_binary.libs"
    import oscrypto

    oscrypto.use_openssl(*(str(next(libraries.glob(f"{name}-*"))) for name in ("libcrypto", "libssl")))
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.peers.pyas2_site"
    import django

    django.setup()


def application() -> Any:
    """The WSGI application."""
    prepare()
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def __getattr__(name: str) -> Any:
    if name == "urlpatterns":  # Django asks for it once it is ready
        from django.urls import include, path

        return [path("pyas2/", include("pyas2.urls"))]
    raise AttributeError(name)


def fill(station: dict[str, list[dict[str, str]]]) -> None:
    """Enter organizations (`name`, `key`: both PEMs) and partners (`name`, `certificate`, `url`)."""
    from django.core.management import call_command
    from pyas2.models import Organization, Partner, PrivateKey, PublicCertificate

    call_command("migrate", verbosity=0)
    for organization in station["organizations"]:
        key = PrivateKey(name=organization["name"], key=organization["key"].encode(), key_pass="")
        key.save()
        Organization(name=organization["name"], as2_name=organization["name"], signature_key=key).save()
    for partner in station["partners"]:
        # Its chain is not looked at: the hub, too, knows the key itself.
        certificate = PublicCertificate(
            name=partner["name"], certificate=partner["certificate"].encode(), verify_cert=False
        )
        certificate.save()
        Partner(
            name=partner["name"],
            as2_name=partner["name"],
            target_url=partner["url"],
            content_type="application/octet-stream",
            signature="sha256",
            signature_cert=certificate,
            mdn=True,
            mdn_mode="SYNC",
            mdn_sign="sha256",
        ).save()


if __name__ == "__main__":
    prepare()
    fill(json.load(sys.stdin))
