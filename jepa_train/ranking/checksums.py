"""Arrow files that hold their own checksum: a single bit that differs later is noticed.

It stands in the metadata of the schema, which such a file has at its beginning and once more at its end.
"""

from __future__ import annotations

import mmap
import zlib
from pathlib import Path

import pyarrow as pa

KEY = "crc32 of this file, with eight dots for its digits"
PREFIX = b"crc32="
BLANK = PREFIX + 8 * b"."


def sealed(rows: pa.Table) -> bytearray:
    """Bytes of an Arrow file with its checksum."""
    sink = pa.BufferOutputStream()
    blank = rows.replace_schema_metadata({KEY: BLANK})
    with pa.ipc.new_file(sink, blank.schema) as file:
        file.write_table(blank)
    content = bytearray(sink.getvalue())
    places = content.find(BLANK), content.rfind(BLANK)
    checksum = _written(zlib.crc32(content))
    for place in places:
        content[place : place + len(BLANK)] = checksum
    return content


def is_whole(path: Path) -> bool:
    """Tell whether a file is as :func:`sealed` made it."""
    with path.open("rb") as file:
        try:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            return False
        with mapped:
            first, last, size = mapped.find(PREFIX), mapped.rfind(PREFIX), len(BLANK)
            checksum = mapped[first : first + size]
            if first == last or checksum != mapped[last : last + size]:
                return False
            with memoryview(mapped) as content:
                found = 0
                for start, end in ((0, first), (first + size, last)):
                    with content[start:end] as piece:
                        found = zlib.crc32(BLANK, zlib.crc32(piece, found))
                with content[last + size :] as piece:
                    found = zlib.crc32(piece, found)
            return checksum == _written(found)


def _written(checksum: int) -> bytes:
    return PREFIX + b"%08x" % checksum
