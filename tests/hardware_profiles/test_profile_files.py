"""The error for an invalid profile file is one line that names the file and the key."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hardware_profiles
from hardware_profiles import InputError, load_profile

FOLDER = Path(hardware_profiles.__file__).parent
GOOD: dict[str, Any] = json.loads((FOLDER / "a100-qwen3-8b.json").read_text(encoding="utf-8"))


def written(folder: Path, content: Any) -> Path:
    path = folder / "faulty.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def at(content: Any, key: str) -> Any:
    for part in key.split(".")[:-1]:
        content = content[part]
    return content


# Keys that a file may lack.
OPTIONAL = ("max_context_tokens", "held_out.seed", "held_out.averaged_mape_percent", "sample.averaged")


def every_key(content: Any, prefix: str = "") -> list[str]:
    if not isinstance(content, dict):
        return []
    keys = [f"{prefix}{key}" for key in content if not f"{prefix}{key}".endswith(OPTIONAL)]
    return keys + [inner for key in content for inner in every_key(content[key], f"{prefix}{key}.")]


def error_line(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_profile(path)
    line = str(caught.value)
    assert "\n" not in line
    assert str(path) in line
    return line


@pytest.mark.parametrize("key", every_key(GOOD))
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    content = copy.deepcopy(GOOD)
    del at(content, key)[key.rsplit(".", 1)[-1]]
    assert f"{key}: " in error_line(written(tmp_path, content))


@pytest.mark.parametrize(
    "section", ["", *(key + "." for key in every_key(GOOD) if isinstance(at(GOOD, key + ".x"), dict))]
)
def test_an_unknown_key_is_named(tmp_path: Path, section: str) -> None:
    content = copy.deepcopy(GOOD)
    at(content, f"{section}x")["surprise"] = 1
    assert f"{section}surprise: " in error_line(written(tmp_path, content))


NUMBERS = [key for key in every_key(GOOD) if isinstance(at(GOOD, key)[key.rsplit(".", 1)[-1]], int | float)]


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1", None, True])
@pytest.mark.parametrize("key", NUMBERS)
def test_an_invalid_number_is_named(tmp_path: Path, key: str, value: Any) -> None:
    content = copy.deepcopy(GOOD)
    at(content, key)[key.rsplit(".", 1)[-1]] = value
    assert f"{key}: " in error_line(written(tmp_path, content))


def swap_seconds(table: dict[str, list[Any]]) -> None:
    table["seconds"][3], table["seconds"][-1] = table["seconds"][-1], table["seconds"][3]


def swap_counts(table: dict[str, list[Any]]) -> None:
    first = next(iter(table))
    table[first][3], table[first][4] = table[first][4], table[first][3]


def drop_first(table: dict[str, list[Any]]) -> None:
    for column in table.values():
        del column[0]


def drop_one_second(table: dict[str, list[Any]]) -> None:
    del table["seconds"][-1]


def shorten_a_row(table: dict[str, list[Any]]) -> None:
    del table["seconds"][2][-1]


def swap_contexts(table: dict[str, list[Any]]) -> None:
    contexts = table["context_tokens"]
    contexts[3], contexts[4] = contexts[4], contexts[3]


def drop_no_context(table: dict[str, list[Any]]) -> None:
    del table["context_tokens"][0]
    for row in table["seconds"]:
        del row[0]


def empty(table: dict[str, list[Any]]) -> None:
    for column in table.values():
        column.clear()


@pytest.mark.parametrize(
    ("table", "break_it", "reason"),
    [
        ("token_time", swap_seconds, "seconds must not decrease"),
        ("token_time", swap_counts, "tokens must increase"),
        ("token_time", drop_first, "tokens must start at 1"),
        ("token_time", drop_one_second, "seconds"),
        ("token_time", empty, "tokens must start at 1"),
        ("decode_const", swap_counts, "sequences must increase"),
        ("decode_const", drop_first, "sequences must start at 1"),
        ("decode_const", drop_one_second, "seconds"),
        ("decode_attention", swap_counts, "sequences must increase"),
        ("decode_attention", drop_one_second, "seconds"),
        ("decode_attention", shorten_a_row, "context_tokens but"),
        ("decode_attention", swap_contexts, "context_tokens must increase"),
        ("decode_attention", drop_no_context, "context_tokens must start at 0"),
    ],
)
def test_an_invalid_table_is_named(
    tmp_path: Path, table: str, break_it: Callable[[dict[str, list[Any]]], None], reason: str
) -> None:
    content = copy.deepcopy(GOOD)
    break_it(content["step_law"][table])
    line = error_line(written(tmp_path, content))
    assert f"step_law.{table}: " in line
    assert reason in line


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "x",}'])
def test_a_file_that_is_not_a_profile_is_named(tmp_path: Path, text: str) -> None:
    error_line(written(tmp_path, text))


def test_a_binary_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "faulty.json"
    error_line(path)
    path.write_bytes(b"\xff\xfe\x00")
    error_line(path)
    assert str(tmp_path) in error_line(tmp_path)


def test_the_error_for_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"a100-llama31-8b, a100-qwen3-8b|a100-llama31-8b, .*a100-qwen3-8b") as caught:
        load_profile("a100-qwen3-9b")
    assert "a100-qwen3-9b" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_profile_loads_the_same_by_name_and_by_path(tmp_path: Path) -> None:
    assert load_profile(written(tmp_path, GOOD)) == load_profile("a100-qwen3-8b")
