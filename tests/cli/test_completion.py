"""What a shell offers after Tab, by Click's own completion."""

import pytest
from click.shell_completion import ShellComplete

from gru_xp import cli

pytestmark = pytest.mark.compat


@pytest.fixture
def complete():
    """``complete("train", "--hid")``: type and value of what is offered for the last word."""
    shell = ShellComplete(cli.cli, {}, "gru-xp", "_GRU_XP_COMPLETE")

    def complete(*words):
        return [(item.type, item.value) for item in shell.get_completions(list(words[:-1]), words[-1])]

    return complete


def test_commands_and_options_are_offered(complete):
    assert ("plain", "train") in complete("tr")
    assert ("plain", "--hidden-size") in complete("train", "--hid")
    assert {value for _, value in complete("train", "--optimizer", "")} == {"adam", "adamw", "sgd", "momentum"}
    for command in ("train", "evaluate", "forecast"):
        assert [value for _, value in complete(command, "--device", "")] == ["auto", "cpu", "cuda"]
        assert [value for _, value in complete(command, "--device", "c")] == ["cpu", "cuda"]


def test_paths_are_offered_for_files_and_runs(complete):
    for words in (
        ("inspect", "GO"),
        ("train", "GO"),
        ("train", "--resume", "runs/"),
        ("evaluate", "runs/"),
        ("evaluate", "runs/goog", "GO"),
        ("forecast", "runs/"),
        ("forecast", "runs/goog", "GO"),
        ("explain", "runs/"),
        ("explain", "runs/goog", "GO"),
        ("export", "runs/"),
        ("export", "runs/goog", "model"),
        ("import", "model"),
        ("import", "model.onnx", "--out", "runs/"),
    ):
        assert [kind for kind, _ in complete(*words)] in (["file"], ["dir"]), words
