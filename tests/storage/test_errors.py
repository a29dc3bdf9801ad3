"""The error tree: one root, builtins a caller would expect, and messages that say where and what."""

from __future__ import annotations

import inspect
import pickle

import pytest

from rawmosaic.storage import errors
from rawmosaic.storage.errors import OutOfRangeError, SlideError

BUILTINS = {
    "OutOfRangeError": IndexError,
    "PlaneMissingError": LookupError,
    "AcquisitionError": ValueError,
    "WriteError": OSError,
    "GraphicsError": RuntimeError,
}
TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, BaseException)]


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_error_is_a_slide_error(error: type):
    assert issubclass(error, SlideError)
    assert error.__name__ in errors.__doc__
    assert inspect.getdoc(error)


@pytest.mark.parametrize("name", BUILTINS)
def test_error_is_the_builtin_a_caller_expects(name: str):
    assert issubclass(getattr(errors, name), BUILTINS[name])


@pytest.mark.parametrize("error", [e for e in TREE if e is not OutOfRangeError], ids=lambda error: error.__name__)
def test_message_says_where(error: type):
    raised = error("it is broken", location="/data/scan.h5")
    assert str(raised) == "/data/scan.h5: it is broken"
    assert raised.location == "/data/scan.h5"
    assert str(error("it is broken")) == "it is broken"
    assert error("it is broken").location is None


def test_out_of_range_keeps_its_values():
    error = OutOfRangeError("field", 7, "the slide has field 0 to 3", location="scan.h5")
    assert (error.what, error.value, error.limits, error.location) == ("field", 7, "the slide has field 0 to 3", "scan.h5")
    assert str(error) == "scan.h5: no field 7: the slide has field 0 to 3"


@pytest.mark.parametrize("error", [e for e in TREE if e is not OutOfRangeError], ids=lambda error: error.__name__)
def test_error_can_be_pickled(error: type):
    """Worker processes hand errors back."""
    again = pickle.loads(pickle.dumps(error("it is broken", location="scan.h5")))
    assert type(again) is error
    assert str(again) == "scan.h5: it is broken"
