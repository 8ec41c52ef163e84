"""`docs/contract.md` names, for every row of the contract, the tests that hold it: this holds it to that."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "contract.md"
CONTRACT = ROOT.parent / "shared" / "contract.md"

SECTION = re.compile(r"## (\d+)\. ")
ROW = re.compile(r"\| (\d+)-(\S+) \| (.+) \| (.*) \|")
TEST = re.compile(r"`([^`:]+\.py)::([^`]+)`")

# Section to the names of its rows. A row that is to go has to go from here too, where somebody will ask why.
ROWS: dict[int, str] = {
    1: "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22",
    2: "create list get update delete messages models other-path other-method",
    3: "key json order text idempotency chunked reply-type sdk-headers keep-alive disconnect",
    4: (
        "types model messages temperature top_p n stream stream_options stop max_tokens max_completion_tokens "
        "presence_penalty frequency_penalty logit_bias logprobs top_logprobs user tools tool_choice "
        "parallel_tool_calls response_format seed reasoning_effort verbosity modalities audio prediction store "
        "metadata service_tier safety_identifier prompt_cache_key prompt_cache_options prompt_cache_retention "
        "web_search_options moderation functions function_call unknown"
    ),
    5: (
        "unknown-keys developer system user assistant tool function text image_url input_audio file refusal "
        "breakpoint unable name calls order round-trip"
    ),
    6: "function custom name none auto required named named-custom allowed embedded calls",
    7: (
        "text json_object json_schema root objects types string number array references refused size output not-strict"
    ),
    8: (
        "stream_options top_logprobs tool_choice tool_choice-words named function_call parallel audio context "
        "clamped metadata"
    ),
    9: (
        "id object created model choices finish_reason role content refusal reasoning_content annotations "
        "tool_calls function_call audio logprobs logprobs-item usage prompt-details completion-details "
        "system_fingerprint service_tier metadata moderation joined"
    ),
    10: "frame 1 2 3 3b 4 5 6 7 8 9 10 11 12 13 14 15",
    11: (
        "x-request-id processing-ms version organization limit remaining reset retry-after retry-after-ms "
        "should-retry allow authenticate no-limits"
    ),
    12: (
        "body not-json content-type missing type number enum array string object unknown unsupported context "
        "schema key quota access idempotency model path method large rate internal overloaded quoted upstream"
    ),
    13: "400 401 403 404 408 409 422 429 500 connection wait frames helpers",
    14: "kept list get update delete messages pages",
    15: "list get accepted key",
    16: "repeat bias equal act developer parts usage mix blocked",
}


class Row(NamedTuple):
    section: int
    name: str
    tests: list[tuple[str, str]]

    @property
    def id(self) -> str:
        return f"{self.section}-{self.name}"


def rows_of(page: str) -> list[Row]:
    """The rows of the page's tables; each must stand in its own section."""
    rows: list[Row] = []
    section = 0
    for line in page.splitlines():
        if begins := SECTION.match(line):
            section = int(begins[1])
        elif found := ROW.fullmatch(line):
            assert int(found[1]) == section, f"{line[:40]} stands in section {section}"
            tests = TEST.findall(found[4])
            assert len(tests) == len(found[4].split()), f"tests this one can't read: {found[4]}"
            rows.append(Row(section, found[2], tests))
        else:
            assert not re.match(r"\| \d", line), f"a row this test can't read: {line[:80]}"
    return rows


PAGE_ROWS = rows_of(PAGE.read_text(encoding="utf-8"))


@cache
def named_in(path: str) -> set[str]:
    """`test_x` and `TestY::test_x` of one file, read without importing it."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    return functions_in(body) | {f"{each.name}::{name}" for each in classes for name in functions_in(each.body)}


def functions_in(body: list[ast.stmt]) -> set[str]:
    functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {function.name for function in functions if function.name.startswith("test_")}


def test_no_row_is_missing_or_new() -> None:
    assert {section: [row.name for row in PAGE_ROWS if row.section == section] for section in ROWS} == {
        section: names.split() for section, names in ROWS.items()
    }
    assert {row.section for row in PAGE_ROWS} == set(ROWS)


def test_no_row_stands_twice() -> None:
    ids = [row.id for row in PAGE_ROWS]
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("row", PAGE_ROWS, ids=lambda row: row.id)
def test_a_row_has_tests_that_exist(row: Row) -> None:
    assert row.tests, "no test holds this row"
    for path, name in row.tests:
        assert (ROOT / path).is_file(), f"{path} does not exist"
        assert name in named_in(path), f"{path} has no {name}"


@pytest.mark.parametrize("section", ROWS)
def test_no_row_of_the_contract_is_left_out(section: int) -> None:
    """Counted against the contract itself, where it lies beside the checkout: its tables' rows and its bullets."""
    if not CONTRACT.exists():
        pytest.skip("the contract does not lie beside this checkout")
    text = CONTRACT.read_text(encoding="utf-8").split(f"\n## {section}. ", 1)[1].split("\n## ", 1)[0]
    table_lines = len(re.findall(r"^\|", text, re.MULTILINE))
    heads = 2 * len(re.findall(r"^\|[-|]+$", text, re.MULTILINE))
    bullets = len(re.findall(r"^- ", text, re.MULTILINE))
    assert table_lines - heads + bullets <= len(ROWS[section].split())
