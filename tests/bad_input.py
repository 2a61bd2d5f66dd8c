"""What tests of bad input share: odd values, accidents that happen to files, and what an error has to be."""

import math

VALUES = (None, True, -1, 0, 3, 2.5, math.nan, math.inf, 10**30, "x", "8", "", [], [1, "a"], [[1], 2], {}, {"a": 1})
"""What a field of JSON may hold, of any type."""


def damaged(data, rng):
    """The bytes of a file after an accident: its end lost, a bit turned, or bytes blank, added, lost or all gone."""
    kind = rng.choice(["cut", "flip", "zero", "insert", "lose", "empty"])
    at = rng.randrange(max(len(data), 1))
    if kind == "cut":
        return data[:at]
    if kind == "flip":
        return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    if kind == "zero":
        return data[:at] + bytes(min(64, len(data) - at)) + data[at + 64 :]
    if kind == "insert":
        return data[:at] + rng.randbytes(8) + data[at:]
    if kind == "lose":
        return data[:at] + data[at + 1 + rng.randrange(8) :]
    return b""


def paths(value, path=()):
    """Every place in a value of JSON."""
    yield path
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(item, (*path, name))


def changed(value, path, new):
    """A copy of a value of JSON with another at one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def told(call, *names, longest=900):
    """The message of a call that fails: one line, not too long, with one of the names in it; "" where it succeeds."""
    try:
        call()
    except (ValueError, OSError) as error:
        message = str(error)
    else:
        return ""
    assert message
    assert "\n" not in message.strip(), message
    assert len(message) <= longest, message
    assert not names or any(str(name) in message for name in names), (message, names)
    return message
