"""Embeds the lines of a text file, and carries on where it was when it is killed and started again.

    python examples/embed.py TEXT VECTORS

Row n of the file of vectors is line n of the text, so a line that runs again after a kill writes
the same bytes to the same place. The embedding is the hashing trick over groups of three letters;
any model can stand in its place.
"""

import sys
import zlib
from array import array
from pathlib import Path

import milepost

DIMENSIONS = 64


def embed(text: str) -> bytes:
    """Counts each three letters up or down in a place of their own, as 64 floats."""
    vector = array("f", bytes(4 * DIMENSIONS))
    for start in range(len(text) - 2):
        code = zlib.crc32(text[start : start + 3].encode())
        vector[code % DIMENSIONS] += 1 if code >> 31 else -1
    return vector.tobytes()


text, vectors = map(Path, sys.argv[1:])
vectors.touch()
with text.open(encoding="utf-8") as lines, vectors.open("r+b", buffering=0) as out:
    for number, line in milepost.resume(enumerate(lines), "embed", key=lambda row: row[0]):
        out.seek(4 * DIMENSIONS * number)
        out.write(embed(line.rstrip("\n")))
