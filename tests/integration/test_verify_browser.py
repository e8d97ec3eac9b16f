"""The page /verify in a real browser (Chromium): what is read there by somebody who has a proof, a document and a
list of the trusted; and that it asks the network for nothing and complains of nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from hub.doors.verify import page
from protocol import proof_words
from protocol.evidence import SEAL_TYPE
from protocol.proof import write_proof
from protocol.proof_trust import Trust, write_trust
from protocol.signature import Signer, generate
from tests.integration.test_proof import Asking
from tests.protocol.test_proof_certificates import MIDDLE, scene_of
from tests.support.browser import NAMED, Browser, needs_browser, running_browser
from tests.support.certificates import make_key
from tests.support.command import Lienthong
from tests.support.pair import Pair
from tests.support.parties import VAN_YEN
from tests.support.proofs import Scene, Witness

pytestmark = needs_browser

RIGHT = "KẾT LUẬN: bằng chứng đúng."
WITHOUT_ED25519 = """
const original = SubtleCrypto.prototype.importKey;
SubtleCrypto.prototype.importKey = async function importKey(format, key, algorithm, ...rest) {
  if (algorithm.name === "Ed25519") throw new DOMException("Algorithm: Unrecognized name", "NotSupportedError");
  return original.call(this, format, key, algorithm, ...rest);
};
"""
"""A browser of before the algorithm came (Chrome 136 and older)."""
EXPLAINED = {code for code, (vi, _) in proof_words.WORDS.items() if "{why}" in vi}


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with running_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """The module's browser, with empty logs; after the test it must have nothing to complain of."""
    one_browser.open("about:blank")
    yield one_browser
    assert one_browser.console() == []


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """The address of the page as it was saved."""
    file = tmp_path / "kiểm tra.html"
    file.write_bytes(page()[0])
    return file.as_uri()


def written(
    folder: Path, scene: Scene, trust: Trust | bytes | None = None, proof: bytes | None = None
) -> dict[str, Path]:
    """A scene's files, or others in their stead, by the page's fields."""
    trust = trust if isinstance(trust, bytes) else write_trust(trust or scene.trust())
    names = {"proof": "báo cáo.proof", "document": "báo cáo.jws", "trust": "trust.json"}
    contents = (proof or write_proof(scene.proof()), scene.document, trust)
    for name, content in zip(names.values(), contents, strict=True):
        (folder / name).write_bytes(content)
    return {field: folder / name for field, name in names.items()}


# -- at a hub ---------------------------------------------------------------------------------------


def expected(answer: dict[str, Any], place: int) -> list[tuple[str, str, bool]]:
    """What the page must say in one language, by the command's answer: a status, the sentence or what it begins
    with, and whether the rest of it is the verifier's own technical reason."""
    found = []
    for one in answer["findings"]:
        words = f"[{proof_words.STATUSES[one['status']][place]}] {proof_words.STEPS[one['step']][place]}: "
        explained = one["code"] in EXPLAINED
        text = proof_words.WORDS[one["code"]][place].partition("{")[0] if explained else one[("vi", "en")[place]]
        found.append((one["status"], words + text, explained))
    return found


def compare(shown: list[tuple[str, str, str]], answer: dict[str, Any]) -> None:
    for place in (0, 1):
        told = [(status, sentences[place]) for status, *sentences in shown]
        words = expected(answer, place)
        assert len(told) == len(words)
        for (status, sentence), (status_, sentence_, explained) in zip(told, words, strict=True):
            assert status == status_
            assert sentence.startswith(sentence_) if explained else sentence == sentence_


def altered(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


async def test_the_page_of_a_hub_says_what_the_command_says(
    pair: Pair, http: aiohttp.ClientSession, browser: Browser, tmp_path: Path
) -> None:
    """Also without a network once it is open."""
    asking, lienthong = Asking(pair.hub, http), Lienthong(tmp_path)
    raw, other = (pair.sender.sign(pair.province.document(VAN_YEN)) for _ in range(2))
    sent = await pair.sender.submit(raw)
    await pair.receiver.acknowledge(*await pair.page())
    proof = await asking.recorded(pair.province.headers, sent.id, 1)
    trust = tmp_path / "trust.json"
    trust.write_bytes(await asking.trust_file())
    address = f"{pair.hub.url}/verify"
    cases = {
        "right": (proof, raw),
        "one byte of the document is another": (proof, altered(raw, len(raw) - 40)),
        "one byte of the proof is another": (altered(proof, len(proof) // 2), raw),
        "another document": (proof, other),
        "no document": (proof, None),
        "cut": (proof[:-300], raw),
        "not JSON": ("Công văn số 215".encode(), raw),
        "not even text": (bytes(range(256)), raw),
        "changed places": (raw, proof),
    }

    def look() -> None:
        for name, (file, document) in cases.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "x.proof").write_bytes(file)
            if document is not None:
                (folder / "x.jws").write_bytes(document)
            chosen = dict(zip(("proof", "document"), sorted(folder.iterdir(), reverse=True), strict=False))
            words = ("verify", *chosen.values(), "--trust-file", trust, "--json")
            answer = orjson.loads(lienthong.call(*words).stdout)
            browser.open(address)
            assert browser.requests() == [address], name
            with browser.offline():
                said = browser.verify(**chosen, trust=trust)
            assert browser.requests() == [] and browser.console() == [], name
            assert (RIGHT in said, "VERDICT: proven." in said) == (answer["verified"],) * 2, name
            assert answer["verified"] is (name == "right")
            if not answer["verified"]:
                step = proof_words.STEPS[answer["failed"]]
                assert f"KẾT LUẬN: KHÔNG được chứng minh. Bước đầu tiên không đạt: {step[0]}." in said, name
                assert f"VERDICT: NOT proven. The first step that fails: {step[1]}." in said, name
            compare(browser.findings(), answer)
            for limit in answer["limits"]:
                assert limit["vi"] in said and limit["en"] in said, name
            assert answer["trust"][str(trust)] in said, name

    await asyncio.to_thread(look)


async def test_where_the_browser_gives_no_cryptography(pair: Pair, browser: Browser, tmp_path: Path) -> None:
    """Over http, by another name than that of this machine itself."""
    address = pair.hub.url.replace("127.0.0.1", NAMED) + "/verify"
    files = written(tmp_path, Scene())

    def look() -> tuple[str, str]:
        browser.open(address)
        assert browser.run("return isSecureContext") is False
        return browser.at("no-crypto").text, browser.verify(**files)

    before, after = await asyncio.to_thread(look)
    assert "hãy mở qua https, hoặc lưu trang về máy rồi mở tệp" in before and "open it over https" in before
    assert "Không kiểm tra được: trình duyệt không cho trang này dùng các phép mật mã" in after
    assert "the browser does not let this page use its cryptography" in after


# -- as it was saved --------------------------------------------------------------------------------


def test_it_works_from_disk_and_asks_for_nothing(browser: Browser, saved: str, tmp_path: Path) -> None:
    witnesses = [Witness("so-noi-vu.gov.vn"), Witness("thanh-tra.gov.vn")]
    scene = Scene(witnesses=witnesses, signed=2)
    browser.open(saved)
    assert not browser.at("no-crypto").is_displayed()
    assert browser.verify(**written(tmp_path, scene, scene.trust(2))).startswith(RIGHT)
    assert browser.requests() == [saved]
    assert {status for status, *_ in browser.findings()} == {"proven", "not_proven"}


def test_what_looks_like_markup_is_text(browser: Browser, saved: str, tmp_path: Path) -> None:
    markup = '<img src=x onerror="window.ran=1"><script>window.ran=1</script><a href="javascript:ran=1">x</a>'
    scene = Scene(recipients=(markup,), ended=1, members={"endpoint": markup})
    files = written(tmp_path, scene)
    files["proof"] = files["proof"].rename(tmp_path / "<img src=x onerror=ran=1>.proof")
    browser.open(saved)
    assert browser.verify(**files).startswith(RIGHT)
    assert sum(markup in vi and markup in en for _, vi, en in browser.findings()) >= 3
    trust = orjson.dumps(orjson.loads(write_trust(scene.trust())) | {markup: 1})
    proof = b'{"format":' + orjson.dumps(markup) + b"}"
    for name, wrong in {"trust": {"trust": trust}, "proof": {"proof": proof}}.items():
        (tmp_path / name).mkdir()
        browser.open(saved)
        said = browser.verify(**written(tmp_path / name, scene, **wrong))
        assert '<img src=x onerror="window.ran=1">' in said
    assert browser.run("return window.ran") is None
    assert browser.driver.find_elements(By.CSS_SELECTOR, "img, a, #result script") == []
    assert len(browser.requests()) == 1


def test_a_trust_file_that_is_none(browser: Browser, saved: str, tmp_path: Path) -> None:
    """What is wrong is said, on one line, whatever is in it."""
    good = orjson.loads(write_trust(Scene().trust()))
    for content, why in (
        (b"\xff\xfe", "is not UTF-8"),
        (b"{", "is not JSON"),
        (b"[]", "this is not a list of the trusted"),
        (orjson.dumps(good | {"logs": "abc"}), "a list in the list"),
        (orjson.dumps(good | {"witnesses": [{"toString": 1}]}), "a list in the list"),
        (orjson.dumps(good | {"\u202ex\ny" * 100: 1}), "has an unknown member \\u202ex\\ny"),
    ):
        browser.open(saved)
        vi, en = browser.verify(**written(tmp_path, Scene(), trust=content)).split("\n")
        assert vi.startswith("Không kiểm tra được: ") and why in vi
        assert en.startswith("It could not be verified: ") and why in en and len(en) < 400


def test_a_file_that_is_too_large(browser: Browser, saved: str, tmp_path: Path) -> None:
    """It is not read at all: the browser would be busy with it for long, or give up without a word."""
    large = tmp_path / "phim.mp4"
    with large.open("wb") as file:
        file.truncate(3 << 30)  # which takes no room on the disk
    files = written(tmp_path, Scene())
    for field in files:
        browser.open(saved)
        said = browser.verify(**(files | {field: large}))
        assert "tệp phim.mp4 lớn hơn 512 MiB" in said and "phim.mp4 is larger than 512 MiB" in said
        assert "lienthong verify" in said
    with large.open("wb") as file:
        file.truncate((64 << 20) + 1)
    browser.open(saved)
    assert "the file is too large" in browser.verify(**(files | {"proof": large}))
    browser.open(saved)
    assert "Bước đầu tiên không đạt: Văn bản." in browser.verify(**(files | {"document": large}))


def test_a_file_that_changed_after_it_was_chosen(browser: Browser, saved: str, tmp_path: Path) -> None:
    files = written(tmp_path, Scene())
    browser.open(saved)
    browser.choose(**files)
    files["document"].write_bytes(b"other bytes, and another length")
    said = browser.press()
    assert "không đọc được tệp báo cáo.jws" in said and "cannot be read" in said and "choose it again" in said


def test_a_verdict_does_not_outlive_its_files(browser: Browser, saved: str, tmp_path: Path) -> None:
    browser.open(saved)
    assert browser.verify(**written(tmp_path, Scene())).startswith(RIGHT)
    other = tmp_path / "khác.jws"
    other.write_bytes(b"x")
    browser.choose(document=other)
    assert browser.at("result").text == ""
    assert "Bước đầu tiên không đạt: Văn bản." in browser.press()
    assert browser.at("busy").text == ""


def test_by_keyboard_and_by_ear(browser: Browser, saved: str, tmp_path: Path) -> None:
    """Every field says what it is, is reached in order, and the verdict is where the keyboard is then."""
    files = written(tmp_path, Scene())
    browser.open(saved)
    keys = ActionChains(browser.driver)
    reached = []
    for file in (*files.values(), None):
        keys.send_keys(Keys.TAB).perform()
        active = browser.driver.switch_to.active_element
        reached.append(active.accessible_name)
        if file is not None:
            active.send_keys(str(file))
    assert [name.split(" (")[0] for name in reached] == [
        "Tệp bằng chứng",
        "Văn bản như đã gửi hoặc nhận",
        "Danh sách tin cậy",
        "Kiểm tra / Verify",
    ]
    assert "Whom you trust" in reached[2]
    keys.send_keys(Keys.ENTER).perform()
    assert browser.answer().startswith(RIGHT)
    heading = browser.driver.switch_to.active_element
    assert heading.aria_role == "heading" and heading.text.startswith(RIGHT)
    assert browser.at("busy").aria_role == "status"


def test_nothing_chosen(browser: Browser, saved: str) -> None:
    browser.open(saved)
    browser.button().click()
    assert browser.run("return document.getElementById('proof').validity.valueMissing") is True
    assert browser.at("result").text == browser.at("busy").text == ""


def test_on_a_telephone(browser: Browser, saved: str, tmp_path: Path) -> None:
    """320 pixels: nothing sticks out, however long a word is."""
    long = Scene(members={"endpoint": "x" * 300})
    files = written(tmp_path, long)
    files["proof"] = files["proof"].rename(tmp_path / f"{'dài' * 40}.proof")
    with browser.width(320):
        browser.open(saved)
        assert browser.verify(**files).startswith(RIGHT)
        assert browser.run("return innerWidth") == 320
        assert browser.run("return document.documentElement.scrollWidth") == 320
        outside = "[...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > 320)"
        assert browser.run(f"return {outside}") == []


# -- browsers that lack something -------------------------------------------------------------------


def test_a_browser_without_ed25519(browser: Browser, saved: str, tmp_path: Path) -> None:
    with browser.beginning_with(WITHOUT_ED25519):
        browser.open(saved)
        said = browser.verify(**written(tmp_path, Scene()))
    assert "Trình duyệt này không có thuật toán Ed25519: hãy dùng trình duyệt mới hơn" in said
    assert "This browser does not have the algorithm Ed25519" in said
    assert [status for status, *_ in browser.findings()] == ["not_proven"]


def test_a_certificate_that_the_browser_cannot_read(browser: Browser, saved: str, tmp_path: Path) -> None:
    """Of a hub whose own key it can use: nobody is said to have forged anything."""
    scene = scene_of(MIDDLE.issue("Văn phòng UBND tỉnh Yên Bái", make_key("ed25519")))
    key = generate("ES256")
    scene.signer = Signer(key, typ=SEAL_TYPE)
    files = written(tmp_path, scene, Trust({scene.signer.kid: key.public_key()}))
    browser.open(saved)
    assert browser.verify(**files).startswith(RIGHT)
    with browser.beginning_with(WITHOUT_ED25519):
        browser.open(saved)
        said = browser.verify(**files)
    assert "This browser does not have the algorithm Ed25519" in said
    assert "contradicted" not in {status for status, *_ in browser.findings()}


def test_a_page_whose_script_does_not_run(browser: Browser, saved: str, tmp_path: Path) -> None:
    """Switched off; or saved as MHTML, with which Chromium does not run any."""
    browser.open(saved)
    assert not browser.at("no-script").is_displayed()
    archive = tmp_path / "trang.mhtml"
    archive.write_bytes(browser.command("Page.captureSnapshot", format="mhtml")["data"].encode())
    browser.open(archive.as_uri())
    told = [browser.at("no-script").text]
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(saved)
        told.append(browser.at("no-script").text)
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    for said in told:
        assert "Trang này cần JavaScript" in said and "This page needs JavaScript" in said
        assert "lienthong verify" in said
