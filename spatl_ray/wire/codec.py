"""Messages as bytes, lossless: decode(encode(u)) == u bit for bit; a message costs len(payload).

Little-endian, without alignment:

    message    "SPTL" | version u8 | kind u8 | round u32 | fields of the kind | parts u8
               | part ... part | CRC-32 of everything before, u32
    fields     update: client u64 | steps u32 | samples u32;  broadcast: none
    part       name length u8 | name, ASCII | value type u8 | mask coding u8 | mask bytes u32
               | values u32 | mask | values

    values     of types 0 to 3 their bits; of int8 and int4 the blocks' scales, bfloat16 each, then the
               integers of blocks whose scale is not 0 (int4: two a byte, the first in the lower half)

The fixed overhead is 31 bytes an update, 15 a broadcast, and 11 + len(name) a part. A message
without parts is not sent at all: it encodes to b"".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from spatl_ray.errors import WireError
from spatl_ray.parameters import Space
from spatl_ray.quantised import BITS
from spatl_ray.update import VALUE_TYPES, Broadcast, Mask, Part, Update
from spatl_ray.wire.masks import Known, decode_mask, encode_mask, fits
from spatl_ray.wire.values import (
    frozen,
    least_bytes,
    read_quantised,
    read_values,
    value_bytes,
)

Last = Mapping[str, Mask]
"""Masks both sides remember from the client's last accepted update, by part name.

A part whose mask is coded as LAST carries no mask bytes: both sides must hold the same memory.
"""

MAGIC = b"SPTL"
VERSION = 1

_PREFIX = struct.Struct("<4sBB")
_BROADCAST = struct.Struct("<IB")
_UPDATE = struct.Struct("<IQIIB")
_PART = struct.Struct("<BBII")
_CHECKSUM = struct.Struct("<I")

_TYPES = ("float32", "float16", "bfloat16", "float64", "int8", "int4")
"""Value types by their number on the wire: append only."""


class Kind(IntEnum):
    """What a message is."""

    BROADCAST = 0
    UPDATE = 1


def encode(
    message: Broadcast | Update, spaces: Mapping[str, Space], last: Last | None = None
) -> bytes:
    """A message's bytes, each mask in its cheapest coding; b"" for a message without parts.

    Args:
        message: what to send.
        spaces: what each part's mask selects from, by part name.
        last: masks that the receiver remembers.

    Raises:
        WireError: a part that is not in `spaces` or does not fit its space, or a number too large.
    """
    if not message.parts:
        return b""
    pieces: list[bytes | memoryview] = [_header(message)]
    earlier: list[Mask] = []
    for name, part in message.parts.items():
        _check_part(name, part, spaces)
        coding, mask = encode_mask(part.mask, Known(earlier, (last or {}).get(name)))
        values = value_bytes(part)
        fields = _PART.pack(_TYPES.index(part.value_type), coding, len(mask), len(part.values))
        pieces += [bytes([len(name)]), name.encode("ascii"), fields, mask, values]
        earlier.append(part.mask)
    checksum = 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
    return b"".join([*pieces, _CHECKSUM.pack(checksum)])


def decode_update(
    payload: bytes | memoryview, spaces: Mapping[str, Space], last: Last | None = None
) -> Update:
    """The update that `payload` encodes; its arrays are read-only and may be views of `payload`.

    Args:
        payload: what `encode` gave.
        spaces: what each part's mask selects from, by part name.
        last: masks remembered from the client's last accepted update.

    Raises:
        WireError: bytes that are no valid update.
    """
    reader = _open(payload, Kind.UPDATE)
    round_, client, steps, samples, parts = reader.unpack(_UPDATE)
    return Update(round_, client, steps, samples, _read_parts(reader, parts, spaces, last or {}))


def decode_broadcast(
    payload: bytes | memoryview, spaces: Mapping[str, Space], last: Last | None = None
) -> Broadcast:
    """The broadcast that `payload` encodes; see `decode_update`.

    Raises:
        WireError: bytes that are no valid broadcast.
    """
    reader = _open(payload, Kind.BROADCAST)
    round_, parts = reader.unpack(_BROADCAST)
    return Broadcast(round_, _read_parts(reader, parts, spaces, last or {}))


def _header(message: Broadcast | Update) -> bytes:
    """Everything before the first part."""
    _check_range("parts", len(message.parts), 8)
    _check_range("round", message.round, 32)
    if isinstance(message, Broadcast):
        fields = _BROADCAST.pack(message.round, len(message.parts))
        return _PREFIX.pack(MAGIC, VERSION, Kind.BROADCAST) + fields
    _check_range("client", message.client, 64)
    _check_range("steps", message.steps, 32)
    _check_range("samples", message.samples, 32)
    fields = _UPDATE.pack(
        message.round, message.client, message.steps, message.samples, len(message.parts)
    )
    return _PREFIX.pack(MAGIC, VERSION, Kind.UPDATE) + fields


def _check_range(field: str, value: int, bits: int) -> None:
    """Raise unless `value` is an unsigned integer of so many bits."""
    if not 0 <= value < 1 << bits:
        raise WireError(f"{field} must be in [0, 2^{bits}), got {value}")


def _check_part(name: str, part: Part, spaces: Mapping[str, Space]) -> None:
    """Raise unless the part can be written and fits the space of its name."""
    if not (name.isascii() and 0 < len(name) < 256):
        raise WireError(f"a part's name must be 1 to 255 ASCII characters, got {name!r}")
    if name not in spaces:
        raise WireError(f"part must be one of {sorted(spaces)}, got {name!r}")
    space = spaces[name]
    if not fits(part.mask, space):
        raise WireError(
            f"part {name!r}: a {part.mask.kind.name} mask must fit a space of {space.size} "
            f"positions and {space.channels} channels"
        )
    if part.values.dtype not in VALUE_TYPES.values():
        raise WireError(
            f"part {name!r}: values must be one of {list(VALUE_TYPES)}, got {part.values.dtype}"
        )
    count = part.mask.count(space)
    _check_range(f"part {name!r}: number of values", count, 32)
    if part.values.shape != (count,):
        raise WireError(
            f"part {name!r}: values must have shape ({count},), got {part.values.shape}"
        )


@dataclass
class _Reader:
    """A bounds-checked cursor over a message's bytes, checksum excluded."""

    data: memoryview
    position: int = 0

    @property
    def left(self) -> int:
        """Number of bytes not yet read."""
        return len(self.data) - self.position

    def take(self, count: int) -> memoryview:
        """The next `count` bytes."""
        if count > self.left:
            raise WireError(f"a message must hold {count} more bytes, got {self.left}")
        self.position += count
        return self.data[self.position - count : self.position]

    def unpack(self, fields: struct.Struct) -> tuple[int, ...]:
        """The next fields."""
        return fields.unpack(self.take(fields.size))


def _open(payload: bytes | memoryview, kind: Kind) -> _Reader:
    """A reader behind the prefix of a message of the given kind whose checksum is right."""
    data = memoryview(payload).toreadonly()
    if data and data.format != "B":
        data = data.cast("B")
    reader = _Reader(data[: max(len(data) - _CHECKSUM.size, 0)])
    magic, version, found = _PREFIX.unpack(reader.take(_PREFIX.size))
    if magic != MAGIC or version != VERSION:
        raise WireError(f"a message must begin with {MAGIC!r}, {VERSION}; got {magic!r}, {version}")
    (checksum,) = _CHECKSUM.unpack(data[-_CHECKSUM.size :])
    if zlib.crc32(reader.data) != checksum:
        raise WireError(f"a message's checksum must be that of its bytes, got {checksum:#010x}")
    if found != kind:
        raise WireError(f"kind must be {int(kind)} ({kind.name.lower()}), got {found}")
    return reader


def _read_parts(
    reader: _Reader, count: int, spaces: Mapping[str, Space], last: Last
) -> dict[str, Part]:
    """All parts; nothing may be left behind them."""
    if count == 0:
        raise WireError("a message must have at least one part")
    parts: dict[str, Part] = {}
    for _ in range(count):
        name = str(reader.take(reader.take(1)[0]), "ascii", "replace")
        if name not in spaces or name in parts:
            raise WireError(f"each part must be one of {sorted(spaces)}, once; got {name!r}")
        known = Known([part.mask for part in parts.values()], last.get(name))
        parts[name] = _read_part(reader, spaces[name], known)
    if reader.left:
        raise WireError(f"a message must end with its last part, got {reader.left} more bytes")
    return parts


def _read_part(reader: _Reader, space: Space, known: Known) -> Part:
    """A part's mask and values; both lengths are held against what is there before either."""
    type_code, coding, mask_size, count = reader.unpack(_PART)
    if type_code >= len(_TYPES):
        raise WireError(f"value type must be in [0, {len(_TYPES)}), got {type_code}")
    value_type = _TYPES[type_code]
    needed = mask_size + least_bytes(value_type, count)
    if count > space.size or needed > reader.left:
        raise WireError(
            f"a part must hold at most {space.size} values and {reader.left} bytes, "
            f"got {count} and {needed}"
        )
    mask = decode_mask(coding, reader.take(mask_size), space, count, known)
    if value_type in BITS:
        quantised = read_quantised(reader.take, count, BITS[value_type])
        return Part(mask, frozen(quantised.values), quantised)
    dtype = VALUE_TYPES[value_type]
    return Part(mask, read_values(reader.take(count * dtype.itemsize), dtype))
