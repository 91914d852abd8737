"""What libraries print while they are imported."""

from __future__ import annotations

import os

import pytest

from lincei.keras_network import held_back_stderr


def test_what_a_library_prints_is_not_shown(capfd):
    with held_back_stderr():
        os.write(2, b"I0000 some greeting\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_it_is_shown_when_the_library_fails(capfd):
    with pytest.raises(ImportError), held_back_stderr():  # noqa: PT012 - printing first is the point
        os.write(2, b"cannot load libsomething\n")
        raise ImportError("libsomething")
    assert "cannot load libsomething" in capfd.readouterr().err
