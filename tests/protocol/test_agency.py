"""Identity codes: what may be one, and where each form's parent is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.agency import MAX_CODE_LENGTH, is_code, is_qcvn_102, is_qd_20, parent


@pytest.mark.parametrize(
    ("code", "above"),
    [
        ("000.00.00.H63", None),
        ("000.00.31.H63", "000.00.00.H63"),
        ("000.21.31.H63", "000.00.31.H63"),
        ("005.21.31.H63", "000.21.31.H63"),
        ("005.00.00.H63", "000.00.00.H63"),
        ("010.20.00.G22", "000.20.00.G22"),
        ("H63", None),
        ("H63.31", "H63"),
        ("H63.31.02", "H63.31"),
        ("G22.99.QLDT", "G22.99"),
        ("H37.DN.001", "H37.DN"),
        ("28.22.H17", None),
        ("vxp.saas.03", None),
        ("000.00.31.h63", None),
        ("0000.00.31.H63", None),
        ("H63.", None),
        ("", None),
    ],
)
def test_parents(code: str, above: str | None) -> None:
    assert parent(code) == above


@pytest.mark.parametrize(
    ("code", "form"),
    [
        ("000.00.31.H63", "qcvn 102"),
        ("005.21.31.G22", "qcvn 102"),
        ("H63", "qd 20"),
        ("H63.31.02", "qd 20"),
        ("H37.DN.001", "qd 20"),
        ("28.22.H17", ""),
        ("vxp.saas.03", ""),
        ("000.00.31.H63\n", ""),
        ("H63.31\n", ""),
        ("h63.31", ""),
        ("", ""),
    ],
)
def test_forms(code: str, form: str) -> None:
    assert (is_qcvn_102(code), is_qd_20(code)) == (form == "qcvn 102", form == "qd 20")


@pytest.mark.parametrize(
    "code",
    ["000.00.31.H63", "H63.31", "H37.DN.001", "28.22.H17", "vxp.saas.03", "A", "a_b-c", "1" * MAX_CODE_LENGTH],
)
def test_codes(code: str) -> None:
    assert is_code(code)


@pytest.mark.parametrize(
    "text",
    ["", ".", "-A", "A-", "A.", " A", "A ", "A\n", "A\0", "A\x85", "A B", "A/B", "A:B", "Yên Bái", "Ｈ63", "٣١",
     "1" * (MAX_CODE_LENGTH + 1), "../..", "A;B", "A'B"],
)  # fmt: skip
def test_texts_that_are_no_codes(text: str) -> None:
    assert not is_code(text)


@given(st.from_regex(r"\A[0-9]{3}\.[0-9]{2}\.[0-9]{2}\.[A-Z][0-9]{2}\Z"))
def test_every_agency_of_the_older_form_leads_up_to_its_province(code: str) -> None:
    chain = [code]
    while (above := parent(chain[-1])) is not None:
        assert is_code(above)
        chain.append(above)
    assert len(chain) <= 4
    assert chain[-1] == f"000.00.00.{code[-3:]}"


@given(st.text(max_size=40))
def test_any_text_has_a_parent_or_none(text: str) -> None:
    above = parent(text)
    assert above is None or len(above) <= len(text)
