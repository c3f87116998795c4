"""The documents are held against the code: generated pages, links, commands, and what they may not speak of."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from docs.build.__main__ import REFERENCE, stale
from docs.build.cli import tree
from docs.build.commands import command_lines, fault
from docs.build.data import FIELDS, RESPONSE_HEADERS
from docs.build.oauth import PARAMETERS
from docs.build.reference import pages
from gateway.api.data import openai

ROOT = Path(__file__).resolve().parents[3]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def documents() -> list[Path]:
    """Every Markdown file of the repository: what is installed or generated beside it is passed over."""
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = sorted(name for name in below if not name.startswith(".") and name != "node_modules")
        found += [Path(folder) / name for name in sorted(names) if name.endswith(".md")]
    assert len(found) > 10
    return found


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.fixture(params=documents(), ids=_name)
def document(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_committed_pages_are_what_the_code_says() -> None:
    assert stale(REFERENCE) == []


def test_a_page_that_differs_or_is_missing_is_stale(tmp_path: Path) -> None:
    made = pages()
    for name, text in made.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "roles.md").write_text(made["roles.md"] + "x", encoding="utf-8")
    (tmp_path / "cli.md").unlink()
    assert stale(tmp_path) == ["cli.md", "roles.md"]


def test_relative_links_lead_somewhere(document: Path) -> None:
    lost = [link for link in _links(document) if not _exists(document, link)]
    assert lost == []


def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(_FILE, document.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


_FILE = r"`((?:gateway|tenants|policies|cli|tests|docs)/[\w/.-]*)`"


def test_documents_speak_of_orgate_alone(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    spoken = [found[0] for pattern in UNSPOKEN for found in re.finditer(pattern, text, re.IGNORECASE)]
    assert spoken == []


UNSPOKEN = (
    r"\bissue[ s]*#?\d+",
    r"(?<![\w&/])#\d+\b",
    r"\b(chatgpt|gpt-\d|copilot chat|claude\.ai|anthropic's claude)\b",
    r"\b(ai[- ](tool|agent|assistant|generated)|coding session|language model wrote)\w*",
    r"(?<![\w.])/(work|tmp|root|home)/\w+",
    r"\b(TODO|FIXME|XXX)\b",
)
"""Trackers' numbers, how the work was done, and paths of one machine: none of it helps whoever reads."""


@pytest.fixture(scope="module")
def one_tree() -> Iterator[None]:
    """The commands, made once for every line of every document: nothing of a line is kept in them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("docs.build.commands.tree", cache(tree))
        yield


@pytest.mark.usefixtures("one_tree")
def test_commands_exist(document: Path) -> None:
    faults = [said for rest, complete in _commands(document) if (said := fault(rest, complete=complete))]
    assert faults == []


def test_the_readme_and_the_guides_show_commands() -> None:
    guides = [ROOT / "README.md", *(ROOT / "docs" / "guides").glob("*.md")]
    assert len(guides) == 7
    for guide in guides:
        assert len(_commands(guide)) >= 5, guide


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("orgate frobnicate", "no command 'frobnicate'"),
        ("orgate model frobnicate", "no command 'frobnicate'"),
        ("orgate model list --frobnicate", "No such option"),
        ("orgate audit verify", "Missing argument"),
        ("orgate --frobnicate model list", "No such option"),
        ("VARIABLE=1 orgate limit set a --amount many", "orgate limit set a --amount many: "),
        ('curl -H "$(orgate token --frobnicate)" https://gateway.example', "No such option"),
    ],
)
def test_a_command_that_does_not_exist_is_found(line: str, says: str) -> None:
    ((rest, complete),) = command_lines(f"```sh\n{line}\n```\n")
    assert says in fault(rest, complete=complete)


def test_every_header_that_the_data_plane_sends_is_documented() -> None:
    sources = [ROOT / "gateway" / "pipeline.py", *(ROOT / "gateway" / "api" / "data").glob("*.py")]
    text = "".join(source.read_text(encoding="utf-8") for source in sources)
    sent = set(re.findall(r'\(b"((?:x-|retry|www|allow|cache)[a-z-]*[a-z])(?:-")?"', text))
    assert {"x-request-id", "x-orgate-model"} <= sent
    assert {name for name in sent if not any(known.startswith(name) for known in RESPONSE_HEADERS)} == set()


def test_every_field_that_is_read_from_a_body_is_documented() -> None:
    bodies = (openai._Completion, openai._Chat, openai._Embedding)
    read = {name for body in bodies for name in body.__struct_fields__}
    assert {"model", "suffix", "max_tokens", "n_predict", "messages"} <= read
    assert read <= {name for names, _, _ in FIELDS for name in re.findall(r"\w+", names)}


def test_every_form_parameter_that_is_read_is_documented() -> None:
    sources = ("service.py", "client_auth.py", "authorization.py", "par.py", "services.py", "exchange.py")
    text = "".join((ROOT / "gateway" / "oauth" / name).read_text(encoding="utf-8") for name in sources)
    read = set(re.findall(r'(?:form\.get\(|_required\(form, )"(\w+)"', text))
    assert {"client_id", "grant_type"} <= read
    assert read <= {name for names in PARAMETERS.values() for name in names}


def _commands(path: Path) -> list[tuple[str, bool]]:
    return list(command_lines(path.read_text(encoding="utf-8")))


def _links(path: Path) -> Iterator[str]:
    for groups in _LINK.findall(_FENCE.sub("", path.read_text(encoding="utf-8"))):
        link = next(filter(None, groups))
        if not re.match(r"[a-z]+:", link):
            yield link


def _exists(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists():
        return False
    return not anchor or target.suffix != ".md" or anchor in _anchors(target)


def _anchors(path: Path) -> set[str]:
    """The anchors GitHub gives to headings: lower case, no punctuation, hyphens for spaces."""
    headings = re.findall(r"^#+ +(.+)$", _FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
