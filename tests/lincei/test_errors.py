"""What `lincei.errors` and `lincei.progress` promise."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from lincei.errors import CancelledError, LinceiError, UsageError
from lincei.progress import Progress, report, stop_if_cancelled


class TestErrors:
    @pytest.mark.parametrize(
        ("parts", "sentence"),
        [
            (("the image is constant",), "the image is constant."),
            (("the image is constant", "a.tif"), "a.tif: the image is constant."),
            (("it is constant", "a.tif", "Check the lamp."), "a.tif: it is constant. Check the lamp."),
            (("is it on?", "", "Look."), "is it on? Look."),
            (("it is full.", Path("a.tif")), "a.tif: it is full."),
        ],
    )
    def test_the_text_says_where_what_and_what_to_do(self, parts: tuple[Any, ...], sentence: str):
        assert str(LinceiError(*parts)) == sentence

    @pytest.mark.parametrize("kind", [LinceiError, UsageError])
    def test_they_reach_another_process_whole(self, kind: type[LinceiError]):
        back = pickle.loads(pickle.dumps(kind("it is constant", "a.tif", "Check the lamp.")))
        assert type(back) is kind
        assert (back.what, back.where, back.what_to_do) == ("it is constant", "a.tif", "Check the lamp.")

    def test_a_wrong_option_is_caught_as_an_error_and_a_cancelled_job_is_not(self):
        assert issubclass(UsageError, LinceiError)
        assert not issubclass(CancelledError, LinceiError)


class TestProgress:
    def test_a_caller_that_listens_is_told_and_one_that_does_not_is_no_error(self):
        heard: list[Progress] = []
        update = Progress("labeling", 1, 4)
        report(heard.append, update)
        report(None, update)
        assert heard == [update]

    def test_a_job_stops_only_when_it_is_asked_to(self):
        stop_if_cancelled(None)
        stop_if_cancelled(lambda: False)
        with pytest.raises(CancelledError):
            stop_if_cancelled(lambda: True)
