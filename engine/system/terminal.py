r"""Show text from strangers on a terminal: file names and messages must not move the cursor or hide what they are.

ECMA-48 control sequences begin with ESC or with a C1 control character; bidirectional controls (Unicode UAX #9) reorder
what is read. All of them are shown as escapes such as `\x1b`.
"""

from __future__ import annotations

import re

_HIDDEN = "\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff"
_UNSAFE = re.compile(f"[{_HIDDEN}]")
_UNSAFE_IN_LINES = re.compile(f"(?![\n\t])[{_HIDDEN}]")


def visible(text: str, *, lines: bool = False) -> str:
    """Return `text` with every control character escaped; with `lines`, newlines and tabs stay."""
    return (_UNSAFE_IN_LINES if lines else _UNSAFE).sub(lambda match: _escape(match[0]), text)


def visible_json(text: str) -> str:
    r"""Return JSON with control characters that JSON allows, such as U+009B, as `\u` escapes of the same meaning."""
    return _UNSAFE_IN_LINES.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(character: str) -> str:
    names = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    code = ord(character)
    return names.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
