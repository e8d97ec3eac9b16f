"""Agencies from CSV: what spreadsheets write, and what is refused with its line."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hub.directory.change import AgencyRow, DirectoryError, read_csv
from protocol.agency import is_code


def refusal(text: str) -> str:
    with pytest.raises(DirectoryError) as caught:
        list(read_csv(text))
    return str(caught.value)


def test_every_column() -> None:
    text = (
        "code,name,parent,aliases,endpoint\n"
        "000.00.00.H63,Ủy ban nhân dân tỉnh Yên Bái,,H63,ubnd-tinh\n"
        '000.00.31.H63,"Ủy ban nhân dân huyện Văn Yên, tỉnh Yên Bái",000.00.00.H63,H63.31;VY.2 VY-3,van-yen\n'
    )
    assert list(read_csv(text)) == [
        AgencyRow("000.00.00.H63", "Ủy ban nhân dân tỉnh Yên Bái", None, ("H63",), "ubnd-tinh"),
        AgencyRow(
            "000.00.31.H63",
            "Ủy ban nhân dân huyện Văn Yên, tỉnh Yên Bái",
            "000.00.00.H63",
            ("H63.31", "VY.2", "VY-3"),
            "van-yen",
        ),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "code,name\nH63,Tỉnh Yên Bái\n",
        "name,code\nTỉnh Yên Bái,H63",
        "\ufeffcode,name\r\nH63,Tỉnh Yên Bái\r\n",
        "code, name\n H63 , Tỉnh Yên Bái \n\n\n",
        'code,name\n"H63","Tỉnh Yên Bái"\n',
        "code,name,endpoint\nH63,Tỉnh Yên Bái\n",
        "code,name,aliases,parent\nH63,Tỉnh Yên Bái,,\n",
    ],
)
def test_as_spreadsheets_write_it(text: str) -> None:
    assert list(read_csv(text)) == [AgencyRow("H63", "Tỉnh Yên Bái")]


def test_a_file_with_a_header_alone_has_no_agencies() -> None:
    assert list(read_csv("code,name\n")) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "first line"),
        ("\n", "first line"),
        ("H63,Tỉnh Yên Bái\n", "first line"),
        ("code\nH63\n", "first line"),
        ("code;name\nH63;Yên Bái\n", "first line"),
        ("code,name,tỉnh\nH63,Yên Bái,x\n", "not known: tỉnh"),
        ("x" * 200_000, "line 1"),
        ("code,name\nH63,Yên Bái\nH63.31,Huyện Văn Yên, tỉnh Yên Bái\n", "line 3: more fields than columns"),
        ("code,name\nH63,Yên Bái\n,Văn Yên\n", "line 3: '' is not an identity code"),
        ("code,name\nH63\n", "line 2: the name of H63"),
        ("code,name\nH63,\n", "line 2: the name of H63"),
        ("code,name\nVăn Yên,Văn Yên\n", "line 2: 'Văn Yên' is not"),
        ("code,name\nH63,Yên\x07Bái\n", "line 2: the name of H63"),
        ("code,name,parent\nH63.31,Văn Yên,tỉnh Yên Bái\n", "'tỉnh Yên Bái' is not"),
        ("code,name,aliases\nH63,Yên Bái,Y/B\n", "'Y/B' is not"),
        ("code,name,endpoint\nH63,Yên Bái,ubnd\x1btinh\n", "line 2: the endpoint of H63"),
        ("code,name,endpoint\nH63,Yên Bái," + "x" * 101, "line 2: the endpoint of H63"),
        ("code,name\nH63," + "x" * 200_000 + "\n", "line 2"),
        ("code,name\nH63," + "x" * 501 + "\n", "1 to 500"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    assert says in refusal(text)


def test_what_came_before_the_wrong_line_is_given() -> None:
    rows = read_csv("code,name\nH63,Yên Bái\nH 63,sai\n")
    assert next(rows) == AgencyRow("H63", "Yên Bái")
    with pytest.raises(DirectoryError, match="line 3"):
        next(rows)


pieces = st.sampled_from(
    [
        "code",
        "name",
        "aliases",
        "H63",
        "Yên Bái",
        ",",
        ",",
        "\n",
        "\n",
        "\r",
        '"',
        " ",
        "\0",
        "\ufeff",
        ";",
        "x" * 140_000,
    ]
)


@given(st.lists(pieces, max_size=15).map("".join) | st.text(max_size=60).map("code,name\n".__add__))
@example('code,name\n"H63')
@example("code,name,name\nH63,a,b")
@example("code,name\n\x85,\u2028")
def test_any_text_gives_sound_rows_or_an_error_of_ours(text: str) -> None:
    try:
        rows = list(read_csv(text))
    except DirectoryError:
        return
    for row in rows:
        assert is_code(row.code)
        assert all(map(is_code, row.aliases))
        assert row.name.isprintable()
        assert row.name
