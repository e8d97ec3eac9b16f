"""What a key counts for by its certificates: worked out once, looked up with a comparison of times."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from hub.directory.picture import Changes, Key, Picture
from hub.directory.trust_standing import (
    Anchor,
    KeyCertificate,
    Revocation,
    Standing,
    TrustPolicy,
    certified,
    plain,
)
from hub.relay.verify import find_signer
from protocol.certificate_revocation import Status
from protocol.problems import Problem
from protocol.signature import Signer, b64url, generate, parse

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
KEY = generate("ES256")
LEAF, BETWEEN, ROOT = b"L" * 32, b"B" * 32, b"R" * 32
ANCHOR = Anchor(ROOT, None, NOW - 300 * DAY, NOW + 300 * DAY, "Gốc")
CERTIFICATE = KeyCertificate("k", LEAF, True, (LEAF, BETWEEN, ROOT), NOW - 10 * DAY, NOW + 10 * DAY, "CN=Văn Yên")


def good(certificate: bytes, until: datetime = NOW + HOUR, at: datetime = NOW - HOUR) -> Revocation:
    return Revocation(certificate, Status.GOOD, "", None, certificate[:1] * 4, at, until)


GOOD = {LEAF: good(LEAF), BETWEEN: good(BETWEEN, NOW + 2 * HOUR, NOW - 2 * HOUR)}


def standing(
    *rows: Revocation,
    policy: TrustPolicy | None = None,
    anchor: Anchor = ANCHOR,
    certificate: KeyCertificate = CERTIFICATE,
) -> Standing:
    known = {row.certificate: row for row in rows}
    return certified(certificate, {anchor.sha256: anchor}, known, policy or TrustPolicy())


def code(standing: Standing, now: datetime = NOW) -> str | None:
    refusal = standing.at(now).refusal
    return None if refusal is None else refusal[0]


def said(standing: Standing, now: datetime = NOW) -> dict[str, object]:
    return dict(orjson.loads(standing.at(now).signer).get("revocation", {}))


def test_a_plain_key_says_its_name_and_no_more() -> None:
    assert plain("k", TrustPolicy()) == Standing('{"kid":"k"}')
    assert code(plain("k", TrustPolicy(require_certificates=True))) == "certificate-required"


def test_good_until_the_oldest_answer_ends_and_then_by_policy() -> None:
    for revocation, later in (("soft", None), ("hard", "revocation-unknown")):
        found = standing(*GOOD.values(), policy=TrustPolicy(revocation=revocation))  # type: ignore[arg-type]
        assert code(found) is None
        assert orjson.loads(found.at(NOW).signer) == {
            "kid": "k",
            "certificate": LEAF.hex(),
            "revocation": {
                "status": "good",
                "policy": revocation,
                "answered_at": (NOW - 2 * HOUR).isoformat(timespec="microseconds")[:-6] + "Z",
                "answers": [(b"L" * 4).hex(), (b"B" * 4).hex()],
            },
        }
        assert said(found, NOW + HOUR)["status"] == "unknown"
        assert said(found, NOW + HOUR)["answers"] == said(found)["answers"]
        assert code(found, NOW + HOUR - timedelta(microseconds=1)) is None
        assert code(found, NOW + HOUR) == later


def test_an_anchor_may_have_its_own_policy() -> None:
    hard = replace(ANCHOR, revocation="hard")
    assert code(standing(anchor=hard)) == "revocation-unknown"
    assert code(standing(anchor=replace(ANCHOR, revocation="soft"), policy=TrustPolicy(revocation="hard"))) is None
    off = standing(anchor=replace(ANCHOR, revocation="off"), policy=TrustPolicy(revocation="hard"))
    assert code(off) is None and said(off) == {"status": "unchecked", "policy": "off"}


def test_nothing_known_is_said_without_a_time() -> None:
    assert said(standing()) == {"status": "unknown", "policy": "soft"}
    part = said(standing(GOOD[BETWEEN]))
    assert part["status"] == "unknown" and part["answers"] == [(b"B" * 4).hex()]


@pytest.mark.parametrize("policy", ["soft", "hard"])
def test_revoked_is_refused_by_every_policy(policy: str) -> None:
    revoked = replace(GOOD[LEAF], status=Status.REVOKED, reason="key_compromise", revoked_at=NOW - HOUR)
    found = standing(revoked, GOOD[BETWEEN], policy=TrustPolicy(revocation=policy))  # type: ignore[arg-type]
    refusal = found.at(NOW).refusal
    assert refusal is not None and refusal[0] == "certificate-revoked"
    assert "key_compromise" in refusal[1] and "whenever it was signed" in refusal[1]
    above = standing(GOOD[LEAF], replace(revoked, certificate=BETWEEN))
    assert "an authority behind" in str(above.at(NOW).refusal)


def test_before_its_time_and_after() -> None:
    found = standing(*GOOD.values())
    assert code(found, NOW - 11 * DAY) == "certificate-expired"
    assert code(found, NOW - 10 * DAY) is None
    assert code(found, NOW + 10 * DAY) == "certificate-expired"
    late = standing(*(good(one, NOW + 20 * DAY) for one in (LEAF, BETWEEN)))
    assert said(late, NOW + 9 * DAY)["status"] == "good"
    assert code(late, NOW + 10 * DAY) == "certificate-expired"


def test_an_anchor_that_was_removed() -> None:
    assert code(standing(*GOOD.values(), anchor=replace(ANCHOR, active=False))) == "certificate-untrusted"
    assert code(standing(*GOOD.values(), anchor=replace(ANCHOR, sha256=b"x"))) == "certificate-untrusted"
    assert code(standing(certificate=replace(CERTIFICATE, chain=()))) == "certificate-untrusted"


def test_a_pinned_certificate_counts_in_its_time_unless_one_is_required() -> None:
    pinned = replace(CERTIFICATE, chained=False, chain=())
    assert code(standing(certificate=pinned)) is None
    assert orjson.loads(standing(certificate=pinned).at(NOW).signer) == {"kid": "k", "certificate": LEAF.hex()}
    assert code(standing(certificate=pinned), NOW + 11 * DAY) == "certificate-expired"
    assert code(standing(certificate=pinned, policy=TrustPolicy(True))) == "certificate-required"


# -- in the picture -------------------------------------------------------------------------------

TWIN = replace(CERTIFICATE, sha256=b"T" * 32, chain=(b"T" * 32, ROOT), not_after=NOW + 30 * DAY)


def picture(*certificates: KeyCertificate, revocations: tuple[Revocation, ...] = ()) -> Picture:
    return Picture().with_changes(
        Changes(
            revision=1,
            keys=[Key("k", KEY.public_key(), endpoint=1)],
            anchors=[ANCHOR],
            certificates=list(certificates),
            revocations=list(revocations),
        )
    )


def signs(picture: Picture, kid: str = "k") -> str:
    """The code of what somebody is told who signs with the key by this name; empty when it is accepted."""
    message = parse(Signer(KEY, kid=kid).sign(b"{}"))
    try:
        find_signer(picture, message, 1, "000.00.31.H63")
    except Problem as problem:
        assert problem.detail
        return problem.code
    return ""


def by(certificate: KeyCertificate) -> str:
    return "x5t:" + b64url(certificate.sha256)


def test_a_key_is_found_by_each_of_its_certificates() -> None:
    both = picture(CERTIFICATE, TWIN)
    assert set(both.keys) == {"k", by(CERTIFICATE), by(TWIN)}
    assert [signs(both, name) for name in both.keys] == ["", "", ""]
    one = both.with_changes(Changes(revision=2, certificates=[replace(CERTIFICATE, active=False)]))
    assert set(one.keys) == {"k", by(TWIN)}
    assert set(both.keys) == {"k", by(CERTIFICATE), by(TWIN)}


def test_what_a_signature_counts_for_follows_every_change() -> None:
    seen = picture(CERTIFICATE)
    assert signs(seen) == ""
    revoked = replace(GOOD[BETWEEN], status=Status.REVOKED, reason="ca_compromise")
    assert signs(seen.with_changes(Changes(revision=2, revocations=[revoked]))) == "certificate-revoked"
    gone = seen.with_changes(Changes(revision=2, anchors=[replace(ANCHOR, active=False)]))
    assert signs(gone) == "certificate-untrusted"
    assert signs(gone.with_changes(Changes(revision=3, anchors=[ANCHOR]))) == ""
    assert signs(seen) == ""


def test_a_revoked_certificate_leaves_the_other_of_the_same_key_unless_the_key_is_lost() -> None:
    replaced = replace(GOOD[LEAF], status=Status.REVOKED, reason="superseded")
    both = picture(CERTIFICATE, TWIN, revocations=(replaced,))
    assert [signs(both, name) for name in ("k", by(CERTIFICATE), by(TWIN))] == ["", "certificate-revoked", ""]
    lost = both.with_changes(Changes(revision=2, revocations=[replace(replaced, reason="key_compromise")]))
    assert {signs(lost, name) for name in ("k", by(CERTIFICATE), by(TWIN))} == {"certificate-revoked"}


def test_an_unknown_revocation_may_be_asked_again() -> None:
    hard = picture(CERTIFICATE).with_changes(Changes(revision=2, anchors=[replace(ANCHOR, revocation="hard")]))
    with pytest.raises(Problem) as found:
        find_signer(hard, parse(Signer(KEY, kid="k").sign(b"{}")), 1, "")
    assert (found.value.code, found.value.retryable, found.value.kind.fault) == ("revocation-unknown", True, "hub")
    assert found.value.retry_after is not None
