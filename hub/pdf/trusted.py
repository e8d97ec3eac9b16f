"""Whom to believe, and why a signature is not. Imported by the checking process alone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asn1crypto import crl as asn1_crl
from asn1crypto import ocsp as asn1_ocsp
from asn1crypto import x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.general import MultivaluedAttributeError, NonexistentAttributeError, find_unique_cms_attribute
from pyhanko.sign.validation.dss import DocumentSecurityStore
from pyhanko.sign.validation.errors import NoDSSFoundError
from pyhanko.sign.validation.pdf_embedded import EmbeddedPdfSignature
from pyhanko_certvalidator import ValidationContext

NOT_KNOWN = "whether its certificate was revoked is not known"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom to believe: certificates of authorities, and revocation lists, all as DER."""

    anchors: Sequence[bytes] = ()
    crls: Sequence[bytes] = ()
    hard: Sequence[bytes] = ()
    """Those authorities below which it must be known that a certificate was not revoked."""

    def lists(self) -> list[Any]:
        """The revocation lists that can be read: one that cannot shall not spoil every check."""
        found = []
        for der in self.crls:
            with contextlib.suppress(ValueError, TypeError):
                each = asn1_crl.CertificateList.load(der)
                _ = each.issuer.native, each["tbs_cert_list"]["this_update"].native
                found.append(each)
        return found

    def is_hard(self, status: Any) -> bool:
        """Whether a signature that is trusted is so because of one of those."""
        path = status.validation_path
        return path is not None and path.first is not None and path.first.dump() in self.hard

    def context(self, carried: Carried, moment: datetime | None, mode: str = "soft-fail") -> ValidationContext:
        return ValidationContext(
            trust_roots=[x509.Certificate.load(der) for der in self.anchors],
            other_certs=carried.certificates,
            crls=[*self.lists(), *carried.crls],
            ocsps=carried.ocsps,
            moment=moment,
            # Lists made after the moment say what was revoked before it.
            retroactive_revinfo=moment is not None,
            allow_fetching=False,
            revocation_mode=mode,
        )


@dataclass(slots=True)
class Carried:
    """What a file holds for its signatures' validation."""

    certificates: list[Any]
    crls: list[Any]
    ocsps: list[Any]


def carried_by(reader: PdfFileReader) -> Carried:
    """What the file's document security store holds; nothing of it is believed for standing there."""
    try:
        store = DocumentSecurityStore.read_dss(reader)
        return Carried(
            list(store.load_certs()),
            [asn1_crl.CertificateList.load(reference.get_object().data) for reference in store.crls],
            [asn1_ocsp.OCSPResponse.load(reference.get_object().data) for reference in store.ocsps],
        )
    except NoDSSFoundError:
        return Carried([], [], [])
    except (MemoryError, RecursionError):
        raise
    except Exception:  # a broken store leaves the signatures without its data, and is no reason to say less
        return Carried([], [], [])


def adobe_of(signature: EmbeddedPdfSignature) -> Carried:
    """Revocation data in the signature itself, as Adobe's way of signing carries it."""
    try:
        held = find_unique_cms_attribute(signature.signer_info["signed_attrs"], "adobe_revocation_info_archival")
        return Carried([], list(held["crl"] or ()), list(held["ocsp"] or ()))
    except (NonexistentAttributeError, MultivaluedAttributeError, ValueError, TypeError, KeyError):
        return Carried([], [], [])


def is_stale(status: Any) -> bool:
    return status.revocation_details is None and _problem(status) == "TRY_LATER"


def is_listed(certificate: Any, lists: Sequence[Any]) -> bool:
    """Whether one of these lists names a certificate as revoked, however old the list is."""
    for each in lists:
        if each.issuer == certificate.issuer:
            for entry in each["tbs_cert_list"]["revoked_certificates"]:
                if entry["user_certificate"].native == certificate.serial_number:
                    return True
    return False


def distrust(status: Any, trust: Trust) -> str:
    """Why a signature that is intact is not trusted, for somebody who did not write pyHanko."""
    if not trust.anchors:
        return "this hub has no trust anchors to which a certificate could lead"
    if status.revocation_details is not None:
        whose = "an authority's" if status.revocation_details.ca_revoked else "its"
        return f"{whose} certificate was revoked at {moment_text(status.revocation_details.revocation_date)}"
    if status.signing_cert.not_valid_before > datetime.now(UTC):
        return "its certificate is not valid yet"
    return _DISTRUST.get(_problem(status), "its certificate cannot be validated")


_DISTRUST = {
    "NO_CERTIFICATE_CHAIN_FOUND": "its certificate leads to no authority that this hub trusts",
    "OUT_OF_BOUNDS_NO_POE": "a certificate of its chain has expired, or is not valid yet",
    "OUT_OF_BOUNDS_NOT_REVOKED": "a certificate of its chain has expired, or is not valid yet",
    "CHAIN_CONSTRAINTS_FAILURE": "its certificate may not be used to sign documents",
    "CRYPTO_CONSTRAINTS_FAILURE": "it rests on an algorithm or a key that is too weak",
    "CRYPTO_CONSTRAINTS_FAILURE_NO_POE": "it rests on an algorithm or a key that is too weak",
    "TRY_LATER": NOT_KNOWN,
}


def _problem(status: Any) -> str:
    """What pyHanko calls what is wrong with a certificate (ETSI EN 319 102-1, table 5)."""
    return str(getattr(status.trust_problem_indic, "name", ""))


def moment_text(moment: datetime | None) -> str:
    if moment is None:
        return ""
    known = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return known.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
