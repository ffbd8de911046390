import json

import pytest

from gru_xp.errors import ArgumentError, CheckpointError
from gru_xp.forecasting.journal import Journal

ABOUT = {"settings": {"hidden_size": 4, "rates": (0.1, 0.2)}, "data": "abc"}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of a journal with two results."""
    path = tmp_path / "all.journal"
    journal = Journal(path, ABOUT)
    assert journal.results == {}
    journal.add("0", {"numbers": [0.1, 1 / 3, 5e-324], "name": "b–c"})
    journal.add("7", {"numbers": []})
    return path


def test_results_are_there_again(path):
    again = Journal(path, ABOUT)
    assert again.results == {"0": {"numbers": [0.1, 1 / 3, 5e-324], "name": "b–c"}, "7": {"numbers": []}}
    again.add("3", {"numbers": [2]})
    assert list(Journal(path, ABOUT).results) == ["0", "7", "3"]


def test_a_line_that_was_cut_short_is_left_out_and_written_again(path):
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        journal = Journal(path, ABOUT)
        assert list(journal.results) == ["0"], end
        assert path.read_bytes() == whole[:start]
    journal.add("7", {"numbers": []})
    assert path.read_bytes() == whole


def test_results_of_other_calls_are_refused(path, refusal):
    """And the file stays as it is."""
    before = path.read_bytes()
    for about, said in (
        ({**ABOUT, "data": "abd"}, ["data", "'abc'", "'abd'"]),
        ({**ABOUT, "settings": {**ABOUT["settings"], "hidden_size": 5}}, ["settings hidden_size", "4", "5"]),
        ({**ABOUT, "more": 1}, ["more"]),
        ({"data": "abc"}, ["settings"]),
    ):
        refusal(lambda about=about: Journal(path, about), str(path), "delete it", *said, error=CheckpointError)
    assert path.read_bytes() == before


def test_what_is_no_journal_is_refused(path, tmp_path, refusal):
    first, *others = path.read_bytes().splitlines(keepends=True)
    other_version = json.dumps(json.loads(first) | {"format_version": 2}).encode() + b"\n"
    for content, said in (
        (b"a,b\n1,2\n", "no journal"),
        (b"a", "no journal"),
        (b"\xff\n", "no journal"),
        (b"{}\n", "no journal"),
        (other_version, "version 2"),
        (first + others[0][:-9] + b"\n" + others[1], "line 2"),
        (first + others[0] + b'{"key": 1, "result": {}}\n', "line 3"),
    ):
        path.write_bytes(content)
        refusal(lambda: Journal(path, ABOUT), str(path), said, error=CheckpointError)
        assert path.read_bytes() == content
    refusal(lambda: Journal(tmp_path, ABOUT), str(tmp_path), error=CheckpointError)
    refusal(lambda: Journal(tmp_path / "no/all.journal", ABOUT), "no", error=CheckpointError)
    refusal(lambda: Journal(3, ABOUT), "path", error=ArgumentError)
