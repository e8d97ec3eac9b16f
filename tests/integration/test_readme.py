"""What the README and the other pages say is true: their commands run, their tables agree with the code."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec
import pytest
from prometheus_client import REGISTRY

from hub.cli import main
from hub.cli.serve import serve
from hub.config import Config
from hub.couriers.mailbox import INLINE_BYTES, PAGE_BYTES
from hub.doors import models
from hub.observe import metrics
from protocol.message import MAX_ATTACHMENTS, MAX_ID_LENGTH, MAX_RECIPIENTS, Document, read_document
from protocol.problems import CATALOGUE
from protocol.stream import MAX_ACKS
from tests.conftest import RunningHub
from tests.support.node import Node

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8700"

StartNode = Callable[..., Awaitable[Node]]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Fenced blocks of a language, without the indentation of the list that they may stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def table(text: str, first: str) -> list[list[str]]:
    """The rows of the table whose head begins with `first`, cells without their code marks."""
    lines = text.split(f"| {first} |", 1)[1].split("\n")[2:]
    rows = []
    for line in lines:
        if not line.startswith("|"):
            return rows
        rows.append([re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip("|").split("|")])
    return rows


# -- the README's commands ------------------------------------------------------------------------


class Reader:
    """Somebody who types what the README says, next to a hub that runs."""

    def __init__(self, node: Node, folder: Path) -> None:
        self.node = node
        self.folder = folder
        here = str(Path(sys.executable).parent)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LIENTHONG")}
        self.environment |= {
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
            "LIENTHONG_URL": node.url,
            "LIENTHONG_DATA_DIR": str(node.data_dir),
        }

    async def types(self, text: str, *interpreter: str) -> str:
        """What `interpreter` (bash by default) writes for a block; it must succeed."""
        process = await asyncio.create_subprocess_exec(
            *(interpreter or ("bash", "-euo", "pipefail", "-c")),
            text.replace(ADDRESS, self.node.url),
            cwd=self.folder,
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        written, _ = await process.communicate()
        assert process.returncode == 0, written.decode()
        return written.decode()


@pytest.fixture
async def reader(start_node: StartNode, tmp_path: Path) -> Reader:
    """A reader who has registered the two agencies."""
    made = Reader(await start_node(), tmp_path)
    await made.types(SHELL[0])
    return made


SHELL = blocks(README, "sh")
(PYTHON,) = blocks(README, "python")


async def test_a_first_document_with_the_command_and_with_python(reader: Reader) -> None:
    block = SHELL[1]
    if shutil.which("curl") is None:  # the trust file is fetched with it
        fetch = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
        block = block.replace("curl -s", f"python3 -c '{fetch}'")
    written = await reader.types(block)
    assert "1 received into received" in written
    assert "The document given is the one that the event speaks of." in written
    assert "VERDICT: proven." in written.split("The document given", 1)[1].split("[proven] Acceptance")[0]
    assert "[proven] Sender: " in written and "KẾT LUẬN: bằng chứng đúng." in written
    assert await reader.types(PYTHON, sys.executable, "-c") == "Báo cáo tuần 40 is at van-yen\n"
    assert (reader.folder / "nhan-duoc.txt").read_text() == "Báo cáo tuần 39\n"
    assert len(PYTHON[PYTHON.index("async def main") :].strip().splitlines()) <= 20


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
async def test_a_first_document_with_curl(reader: Reader) -> None:
    written = await reader.types(SHELL[2])
    assert '"state":"accepted"' in written
    assert '{"acknowledged":1,"refused":0}' in written


def test_the_two_commands_are_targets() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = re.findall(r"(?:`|^    )make ([a-z]+)", README, re.MULTILINE)
    assert {"demo", "test", "serve", "bench"} <= set(commands)
    for command in commands:
        assert command in targets


def test_figures_of_performance_name_their_command() -> None:
    assert not re.search(r"\d\s*(/s\b|ms\b|µs\b|per second)", README)


# -- pages ----------------------------------------------------------------------------------------


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {_anchor(heading) for heading in headings}, target


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[a-z-]+\.md)", README))
    assert linked == {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_variables_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    spans += [line for block in blocks(text, "sh") for line in block.split("\n")]
    starts = (re.match(r"lienthong ((?:[a-z][a-z-]* ?){1,2})", span) for span in spans)
    named = [found[1] for found in starts if found]
    for words in named:
        command: click.Command = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"lienthong {words}"
            command = command.commands[word]
    documented = set(re.findall(r"\bLIENTHONG_[A-Z_]+\b", text))
    if path.name != "deploying.md":  # its proxy has variables of its own
        assert documented <= _variables(main), path.name


def _variables(command: click.Command) -> set[str]:
    if isinstance(command, click.Group):
        return set().union(*map(_variables, command.commands.values()))
    return {str(option.envvar) for option in command.params if option.envvar}


# -- settings -------------------------------------------------------------------------------------


def test_the_table_of_settings_agrees_with_the_program() -> None:
    rows = table(page("operating.md"), "option | environment | default | meaning")
    options = {option.opts[0]: option for option in serve.params if isinstance(option, click.Option)}
    del options["--json"]
    assert [row[0] for row in rows] == ["--" + name.replace("_", "-") for name in _ordered(Config)]
    assert {row[0] for row in rows} == set(options)
    for flag, variable, default, meaning in rows:
        assert options[flag].envvar == variable
        value = getattr(Config(), flag[2:].replace("-", "_"))
        assert default == (str(value).lower() if isinstance(value, bool) else str(value)), flag
        assert meaning
    for flag, variable, default, _ in table(README, "option | environment | default | meaning"):
        assert [flag, variable, default] in [row[:3] for row in rows]


def _ordered(config: type[Config]) -> list[str]:
    """Settings in the table's order: the two places first, then as they are declared."""
    names = [field.name for field in msgspec.structs.fields(config)]
    names.remove("database_url")
    return [names[0], "database_url", *names[1:]]


# -- the HTTP interface ---------------------------------------------------------------------------


def test_the_table_of_problems_is_the_catalogue() -> None:
    rows = table(page("http.md"), "code | status | fault | retryable | meaning")
    assert rows == [
        [kind.code, str(kind.status), kind.fault, "yes" if kind.retryable else "no", kind.title]
        for kind in CATALOGUE.values()
    ]


def test_every_problem_has_a_line_of_advice() -> None:
    rows = table(page("operating.md"), "code | look at")
    codes = [code.strip("`") for row in rows for code in row[0].split(", ")]
    codes = [code.strip("`") for code in codes]
    assert len(codes) == len(set(codes))
    assert set(codes) == set(CATALOGUE)


async def test_the_table_of_operations_is_that_of_the_hub(hub: RunningHub, http: object) -> None:
    import aiohttp

    assert isinstance(http, aiohttp.ClientSession)
    async with http.get(f"{hub.url}/openapi.json") as response:
        paths = (await response.json())["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    documented = set(re.findall(r"^\| \[`([A-Z]+ [^`]+)`\]", page("http.md"), re.MULTILINE))
    assert documented == served


def test_the_example_document_is_one_and_its_members_are_all_described() -> None:
    text = page("http.md")
    example = read_document(blocks(text, "json")[0].encode())
    assert example.code == "215/BC-UBND" and example.expires is not None
    described: set[str] = set()
    for row in table(text, "member | | meaning"):
        described |= {name.strip("` ") for name in row[0].split(",")}
    assert described == {field.encode_name for field in msgspec.structs.fields(Document)}


def test_limits_that_the_pages_name() -> None:
    http, security = page("http.md"), page("security.md")
    config = Config()
    assert (MAX_RECIPIENTS, MAX_ATTACHMENTS, MAX_ID_LENGTH) == (5000, 100, 128)
    assert "1 to 5,000 addresses" in http and "at most 100:" in http and "1 to 128 characters" in http
    assert (config.max_batch_messages, config.max_batch_bytes) == (1000, 32 << 20)
    assert "Up to 1,000 lines and 32 MiB" in http
    assert (config.max_message_bytes, config.max_xml_bytes, config.max_attachment_bytes) == (
        1 << 20,
        512 << 20,
        4 << 30,
    )
    assert "1 MiB; 1,000 messages, 32 MiB; 512 MiB; 4 GiB" in security
    assert (models.MAX_PAGE, models.MAX_WAIT_SECONDS, MAX_ACKS) == (1000, 60, 10_000)
    assert "1 to 1,000; a page also ends at about 8 MiB" in http and PAGE_BYTES == 8 << 20
    assert "Larger\nmessages than 64 KiB do not come along" in http and INLINE_BYTES == 64 << 10


# -- operating ------------------------------------------------------------------------------------


def test_the_table_of_metrics_is_what_is_measured() -> None:
    documented = {row[0] for row in table(page("operating.md"), "metric | labels | meaning")}
    assert metrics.MESSAGES  # they register when the module is loaded
    families = [family for family in REGISTRY.collect() if family.name.startswith("lienthong_")]
    assert documented == {family.name + ("_total" if family.type == "counter" else "") for family in families}
