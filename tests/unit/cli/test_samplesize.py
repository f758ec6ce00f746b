"""`serinus sample-size`."""

from __future__ import annotations

import pytest

from serinus.cli.main import main


def test_sizes_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-size", "--baseline", "10%", "--effect", "5", "--per-day", "686"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "live       686 trials",
        "candidate  686 trials",
        "time       2.0 days at 686 trials a day; maxDuration: 4d or more",
    ]


@pytest.mark.parametrize("more", [["--baseline", "4", "--effect", "x"], ["--baseline", "99", "--effect", "2"]])
def test_what_is_no_share_is_an_error(more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-size", *more]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_the_help_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sample-size", "--help"])
    assert "4%" in capsys.readouterr().out
