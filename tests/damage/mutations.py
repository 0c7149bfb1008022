"""Rows as they come from a bad export, a cut copy or a hostile hand: a good row, changed in one way drawn by a seed."""

import json
import random

HUGE = "word " * 4000
TEXTS = [
    HUGE, "", " ", "\u3000", "\x00", "a\x00b", "a\nb", "a\tb", "\r", "\u2028", "\x85", "\u202eabc", "\u200b",
    "e\u0301" * 30, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0010ffff", "\ufffd", "\x1b[2J",
    "[SEP] [PAD] </s> <|im_end|>", "None", "null", "NaN", "0", "../../etc/passwd", "'; DROP TABLE x; --", "{{7*7}}",
    "%s%n", "=1+1",
]  # fmt: skip
VALUES = [None, True, False, 0, 1, 7, -1, 1.5, [], {}, [[]], [None], [""], ["a", 3], {"a": "b"}, "text", ["text"]]
# As they stand in JSON; not all of them are.
TOKENS = [
    "1e999", "-1e999", "1e308", "-1e308", "1e-320", "-0.0", "1" * 400, "1" * 5000, "NaN", "Infinity", "-Infinity",
    "0x10", "01", "+1", ".5", "1.", "1_000", "nul", "'a'", '"\\ud800"', '"\\udc00\\ud800"', '"\\u00"', '"\\x41"',
    '"\\u0000"', '"a\x01b"', "[" * 300 + "]" * 300, '{"a":' * 300 + "1" + "}" * 300, "[,]", "[1,]", "true", "undefined",
]  # fmt: skip


def mutated_rows(good, others, *, seed, count):
    """Return lines, each a good row changed in one way.

    Args:
        good: rows of the record that is asked for, as objects.
        others: rows of other records.
    """
    generator = random.Random(seed)
    changes = [
        _drop, _rename, _add, _other_text, _other_value, _other_value, _other_token, _other_token, _repeat_key, _longer,
        _cut, _bytes, _flip, _around, _joined, _noise, _no_object,
    ]  # fmt: skip
    made = [json.dumps(row).encode() for row in (*others, *good)]
    while len(made) < count:
        row = json.loads(json.dumps(generator.choice(good)))
        if further := _further(row, len(made)):
            row |= further
        elif "passage" in row and generator.random() < 0.5:
            row["passage"] += f" {len(made)}"
        elif generator.random() < 0.5:
            row |= {name: f"new {len(made)}" for name in ("query_id", "_id") if name in row}
        made.append(generator.choice(changes)(row, generator).replace(b"\n", b" "))
    return made


def _further(row, number):
    """Return what makes another row of one of query expansion, for the same query: no other would be known."""
    if "sample" in row:
        return {"sample": number, "text": f"sorted {number}"}
    if "method" in row:
        return {"method": f"new {number}"}
    if "gain" in row:
        return {"passage_id": f"d{2 + number % 2}"}
    return {"prompt": f"Query: {number}"} if "prompt" in row else {}


def _write(row, raw=None):
    text = json.dumps(row, ensure_ascii=False)
    for mark, token in (raw or {}).items():
        text = text.replace(json.dumps(mark), token)
    return text.encode(errors="surrogatepass")


def _drop(row, generator):
    del row[generator.choice(list(row))]
    return _write(row)


def _rename(row, generator):
    name = generator.choice(list(row))
    value = row.pop(name)
    return _write(row | {generator.choice([name.upper(), f" {name}", f"{name}s", f"\ufeff{name}", ""]): value})


def _add(row, generator):
    name = generator.choice(["candidates", "positive", "score", "label", "text", "title", "_id", "query", "x", ""])
    return _write({name: generator.choice(VALUES), **row})


def _other_text(row, generator):
    name = generator.choice(list(row))
    text = generator.choice(TEXTS)
    return _write(row | {name: [text, "b"] if isinstance(row[name], list) else text})


def _other_value(row, generator):
    return _write(row | {generator.choice(list(row)): generator.choice(VALUES)})


def _other_token(row, generator):
    name = generator.choice(list(row))
    mark = "the mark"
    value = [mark, *row[name]] if isinstance(row[name], list) and generator.random() < 0.5 else mark
    return _write(row | {name: value}, {mark: generator.choice(TOKENS)})


def _repeat_key(row, generator):
    name = generator.choice(list(row))
    again = json.dumps({name: generator.choice(VALUES)})
    return (again[:-1] + ", " + json.dumps(row)[1:]).encode()


def _longer(row, generator):
    name = generator.choice(list(row))
    value = row[name]
    more = [*value, *value, *(f"{value[0]} {i}" for i in range(40))] if isinstance(value, list) else f"{value} " * 500
    return _write(row | {name: more})


def _cut(row, generator):
    line = _write(row)
    return line[: generator.randrange(1, len(line))]


def _bytes(row, generator):
    line = _write(row)
    place = generator.randrange(len(line))
    put = generator.choice([b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\x80", b"\x00", b"\xf8\x88"])
    return line[:place] + put + line[place:]


def _flip(row, generator):
    line = bytearray(_write(row))
    line[generator.randrange(len(line))] ^= 1 << generator.randrange(8)
    return bytes(line)


def _around(row, generator):
    before = generator.choice([b"", b"\xef\xbb\xbf", b"\xc2\xa0", b" \t", b"("])
    return before + _write(row) + generator.choice([b"", b"\r", b" ", b",", b")", b"//x"])


def _joined(row, generator):
    return _write(row) + generator.choice([b"", b" ", b",", b"\r", b"\x00"]) + _write(row)


def _noise(row, generator):
    return b"x" + generator.randbytes(generator.randrange(1, 60))


def _no_object(row, generator):
    lists = [b"[]", _write([row]), _write(list(row))]
    return generator.choice([*lists, b"null", b"3", b'"a"', b"{}", b"{", b"}", b"NaN", b"q\t0\td\t1", b"a,b"])
