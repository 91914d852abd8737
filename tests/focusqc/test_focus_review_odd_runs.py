"""What the card of a model names as the command that made it."""

from __future__ import annotations

import sys

import pytest

from lincei.training import typed_command


def test_the_data_folder_may_end_with_a_slash_and_names_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["lincei", "train-focus", "--input", "a=/x/data/b/*.tif", "--data-credit"]
    )
    monkeypatch.setenv("LINCEI_DATA", "/x/data/")
    assert typed_command() == 'lincei train-focus --input "a=$LINCEI_DATA/b/*.tif" --data-credit'
    monkeypatch.setenv("LINCEI_DATA", "data")
    assert typed_command().endswith("--data-credit")
