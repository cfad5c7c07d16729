"""Embeds the lines of a text file in chunks, and carries on where it was when it is killed.

    python examples/embeddings.py TEXT VECTORS

Row n of the file of vectors is line n of the text, 64 floats of 4 bytes, each exactly once. Lines
are known by their position, so a million of them take no memory for keys; and a run that finds
another text behind the same name is refused.

The embedding is feature hashing over groups of three letters, because no model fits in here without
a download. A model takes the place of `embed`: it gets a chunk of lines, and so a whole batch.
"""

import sys
import zlib
from array import array

import milepost

DIMENSIONS = 64
CHUNK = 256


def embed(lines: list[str]) -> bytes:
    """Counts each three letters of a line up or down in a place of their own."""
    vectors = array("f", bytes(4 * DIMENSIONS * len(lines)))
    for row, line in enumerate(lines):
        text = line.rstrip("\n").encode("utf-32-le")
        for start in range(0, len(text) - 8, 4):
            code = zlib.crc32(text[start : start + 12])
            vectors[DIMENSIONS * row + code % DIMENSIONS] += 1 if code >> 31 else -1
    if sys.byteorder == "big":
        vectors.byteswap()
    return vectors.tobytes()


source, target = sys.argv[1:]
model = {"model": "hashing", "dimensions": DIMENSIONS}
with open(source, encoding="utf-8") as text:
    chunks = milepost.resume(text, "embeddings", key="position", chunk=CHUNK, params=model)
    vectors = chunks.open(target)
    for chunk in chunks:
        vectors.write(embed(chunk))
