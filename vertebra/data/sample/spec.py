"""The choices that a sample set is made by, and the hash that identifies its content."""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from vertebra.ground.errors import DataError

LAYOUT_VERSION = 1  # of the folders and of sample.json
_GENERATOR = ("shapes.py", "paint.py", "scenes.py", "formats.py")  # what the content depends on, and nothing else
_IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
_LAYOUT = {tokenize.INDENT: "\x01", tokenize.DEDENT: "\x02", tokenize.NEWLINE: "\n"}


@dataclass(frozen=True)
class SampleSpec:
    """The seed of everything that is drawn, and the numbers of pictures; their content depends on both alone."""

    seed: int = 0
    train_scenes: int = 1800
    val_scenes: int = 300
    train_objects: int = 3000
    val_objects: int = 500

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name == "seed" else 1
            if value < least:
                raise DataError("sample set", f"{field.name} is {value}", f"give {least} or more")
        most = max(self.train_scenes, self.val_scenes)
        if most >= 500_000:
            raise DataError("sample set", f"scenes are numbered in six digits, {most} are too many", "give < 500000")


def normalised_source(text: str) -> str:
    """Python source without comments, docstrings and the spacing inside lines."""
    kept: list[str] = []
    fresh = True  # at the beginning of a statement, where a bare string is a docstring
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in _IGNORED]
    for place, token in enumerate(tokens):
        ends = place + 1 == len(tokens) or tokens[place + 1].type == tokenize.NEWLINE
        if token.type in _LAYOUT:
            kept.append(_LAYOUT[token.type])
            fresh = True
        elif not (fresh and ends and token.type == tokenize.STRING):
            kept.append(token.string)
            fresh = False
    return "".join(kept)


def generator_hash(spec: SampleSpec) -> str:
    """SHA-256 (hexadecimal) over the generator's source, as it reads without comments, and the spec.

    A change of any name in that source makes all sample sets drawn before, and the runs on them, another set's.

    Not in it: the versions of NumPy and OpenCV, whose rounding may move an edge by a pixel.
    """
    digest = hashlib.sha256(json.dumps({"layout": LAYOUT_VERSION, **asdict(spec)}, sort_keys=True).encode())
    for name in _GENERATOR:
        source = Path(__file__).with_name(name).read_text(encoding="utf-8")
        digest.update(f"\x00{name}\x00{normalised_source(source)}".encode())
    return digest.hexdigest()
