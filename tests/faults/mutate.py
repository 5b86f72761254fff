"""Files of a run made wrong on purpose. Of a checkpoint the checksums are put right again, so that what
is behind them is reached; its layout is read and written by the description in host/run/checkpoint.c."""
import re
import struct
import zlib

EXTREME = (0, 1, 2, 3, 7, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 1.0, -1.0, float("nan"), float("inf"), -float("inf"), 1e308, 1e-308, 1e38, -3.5)
VALUES = ("0", "-1", "1", "2", "1e999", "-0.0", "1e-400", "4294967296", "18446744073709551615", "9" * 40, "0.5", "null",
          "true", "false", '""', '"none"', '"digits"', '"gaussian"', '"bernoulli"', '"\\u0000"', '"' + "x" * 600 + '"',
          "[]", "{}", "[1]", "[0]", "[4096]", "[" * 3000, "[-1, 1e9]", '"../fix/rows.npy"', '"cuda:7"', '"iwae"')


def split(raw):
    """[tag, bytes] of each section."""
    n = struct.unpack_from("<I", raw, 16)[0]
    found = []
    for i in range(n):
        tag, _, offset, length = struct.unpack_from("<12sIQQ", raw, 32 + 32 * i)
        found.append([tag.rstrip(b"\0"), raw[offset:offset + length]])
    return found


def header(table, size, version=1, endian=0x01020304, n=None):
    head = b"\x89VAE\r\n\x1a\n" + struct.pack("<IIIIQ", version, endian, len(table) if n is None else n, 0, size)
    head += b"".join(table)
    return head[:20] + struct.pack("<I", zlib.crc32(head)) + head[24:]


def join(sections, rng=None):
    """A checkpoint, with right checksums; with rng, a number of its table is not."""
    at, table, body = 32 + 32 * len(sections), [], b""
    for tag, raw in sections:
        gap = -at % 64
        table.append([tag[:12], zlib.crc32(raw), at + gap, len(raw)])
        body += bytes(gap) + raw
        at += gap + len(raw)
    more = {}
    if rng is not None:
        what = rng.randrange(5)
        row = rng.choice(table) if table else None
        if what == 0:
            more = {rng.choice(("version", "n", "endian")): rng.choice(EXTREME) % 2**32}
        elif what == 1:
            at = rng.choice((at + rng.randrange(-70, 70), rng.choice(EXTREME))) % 2**64
        elif row is not None:
            i = rng.choice((2, 3))
            row[i] = rng.choice((row[i] + rng.choice((-64, -1, 1, 64)), rng.choice(EXTREME))) % 2**64
    return header([struct.pack("<12sIQQ", *row) for row in table], at, **more) + body


def mutate_text(rng, raw):
    """JSON, still nearly so."""
    text = raw.decode(errors="replace")
    values = list(re.finditer(r'(?<=[:\[,])\s*("(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|\[[^\[\]{}]*\])', text))
    what = rng.randrange(6)
    if what <= 2 and values:
        at = rng.choice(values)
        text = text[:at.start()] + rng.choice(VALUES) + text[at.end():]
    elif what == 3 and len(values) > 1:
        one, other = rng.choice(values), rng.choice(values)
        text = text[:one.start()] + other.group() + text[one.end():]
    elif what == 4:
        members = list(re.finditer(r'"[a-z_0-9]+"\s*:\s*[^,{}\[\]]*,', text))
        if members:
            at = rng.choice(members)
            text = text[:at.start()] + (at.group() * 2 if rng.random() < 0.3 else "") + text[at.end():]
    else:
        return mutate_bytes(rng, raw)
    return text.encode()


def mutate_bytes(rng, raw):
    raw = bytearray(raw)
    what = rng.randrange(4)
    if not raw or what == 0:
        at = rng.randrange(len(raw) + 1)
        raw[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 4, 8, 64))))
    elif what == 1:
        at = rng.randrange(len(raw))
        del raw[at:at + rng.choice((1, 4, 8, len(raw)))]
    else:
        for _ in range(rng.randrange(1, 5)):
            raw[rng.randrange(len(raw))] = rng.choice((0, 255, 10, 34, 92, rng.randrange(256)))
    return bytes(raw)


def mutate_numbers(rng, raw):
    form = rng.choice(("<Q", "<d", "<f", "<I"))
    size = struct.calcsize(form)
    if len(raw) < size:
        return mutate_bytes(rng, raw)
    at = rng.randrange(len(raw) // size) * size
    value = rng.choice(REALS) if form in ("<d", "<f") else None
    if value is None:
        old = struct.unpack_from(form, raw, at)[0]
        value = rng.choice((rng.choice(EXTREME), old + 1, old - 1, old * 2)) % 2**(8 * size)
    elif form == "<f" and abs(value) > 3e38 and value - value == 0:
        value = 3e38
    return raw[:at] + struct.pack(form, value) + raw[at + size:]


def mutate_checkpoint(rng, raw, others):
    """others: checkpoints to take sections from."""
    sections = split(raw)
    broken_table = False
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not sections:
            break
        # what is small says much; weights are mostly weights
        i = rng.choice([k for k, s in enumerate(sections) for _ in range(1 if s[0][:4] in (b"para", b"adam") else 3)])
        tag, body = sections[i]
        what = rng.randrange(12)
        if what <= 3:
            change = mutate_text if tag in (b"config", b"summary") else rng.choice((mutate_numbers, mutate_bytes))
            sections[i] = [tag, change(rng, body)]
        elif what <= 6:
            sections[i] = [tag, (mutate_text if tag in (b"config", b"summary") else mutate_numbers)(rng, body)]
        elif what == 7:
            del sections[i]
        elif what == 8:
            sections.insert(rng.randrange(len(sections) + 1), [rng.choice((tag, b"x" * 12, b"")), body])
        elif what == 9:
            other = split(rng.choice(others))
            same = [s for s in other if s[0] == tag] or other
            sections[i] = [tag, rng.choice(same)[1]]
        elif what == 10:
            j = rng.randrange(len(sections))
            sections[i], sections[j] = sections[j], sections[i]
        else:
            broken_table = True
    return join(sections, rng if broken_table else None)
