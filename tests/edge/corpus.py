"""Requests that nobody should send: what two parsers might read differently, garbage, and wrong
sizes. As data: a name, the bytes, and what may be said about them.

Where the end of a request is in doubt, `SMUGGLED` follows, a whole request of its own. If that one
is ever answered, the end of the first was found where somebody else might not see it.
"""

import gzip
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

CANARY = "cAnArY7Q"
SMUGGLED = f"GET /livez HTTP/1.1\r\nHost: {CANARY}\r\n\r\n".encode()


@dataclass(frozen=True)
class Target:
    """Where a listener takes a body: everything that makes a request of it a good one."""

    path: str
    media: str
    body: bytes
    lines: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        """The one header line that says how long the body is."""
        return f"Content-Length: {len(self.body)}"

    def request(
        self,
        *lines: str,
        method: str = "POST",
        target: str | None = None,
        version: str = "HTTP/1.1",
        media: str | None = None,
        body: bytes | None = None,
        host: str = "Host: x",
    ) -> bytes:
        """A request with these header lines; good if the lines are just `size`."""
        given = [f"{method} {self.path if target is None else target} {version}", host]
        given += [*self.lines, f"Content-Type: {self.media if media is None else media}"]
        if media == "":
            given.pop()
        head = "\r\n".join([*(line for line in given if line), *lines, "", ""])
        return head.encode("utf-8", "surrogateescape") + (self.body if body is None else body)


@dataclass(frozen=True)
class Case:
    """A request; `tokens` are the problems it may meet, any of 4xx if none is named."""

    name: str
    request: bytes
    tokens: frozenset[str] = field(default=frozenset())
    # A second request follows, which must not be read.
    smuggles: bool = True
    # The client ends its side after the last byte.
    hangs_up: bool = False

    @property
    def sent(self) -> bytes:
        """All bytes of the connection."""
        return self.request + (SMUGGLED if self.smuggles else b"")


def chunked(body: bytes) -> bytes:
    """A body in one chunk."""
    return b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


def _case(name: str, request: bytes, *tokens: str, **more: bool) -> Case:
    return Case(name, request, frozenset(tokens), **more)


def lengths(t: Target) -> Iterator[Case]:
    """Lengths that are several, or none."""
    n = len(t.body)
    for pair in [(n, 5), (5, n), (n, n), (0, n), (n, 0), (n, "x"), ("", n), (n, ""), (n, -1)]:
        first, second = (f"Content-Length: {value}" for value in pair)
        yield _case(f"lengths {pair}", t.request(first, second), "bad_request")
        apart = t.request(first, "X: 1", second.lower())
        yield _case(f"lengths {pair} apart", apart, "bad_request")
    wrong = ["-1", f"+{n}", hex(n), f"{n}.0", "1e3", "9" * 40, "18446744073709551616", "", "x"]
    wrong += [f"{n}, {n}", f"{n},5", f"{n};5", f"{n} {n}", f"{n}\x00", f"\x0b{n}", f"'{n}'", "१२"]
    wrong += [f"{n}_0", f"{n}\x0b", f"{n}L", "0b11", "0o17", "NaN", "Infinity", f"({n})"]
    for value in wrong:
        yield _case(f"length {value!r}", t.request(f"Content-Length: {value}"), "bad_request")


def codings(t: Target) -> Iterator[Case]:
    """Transfer codings, alone and beside a length."""
    values = ["chunked", "xchunked", "chunked, identity", "identity", "gzip, chunked", "x, chunked"]
    values += [
        "chunked, chunked",
        "cHuNkEd",
        "chunked;q=1",
        "\tchunked",
        '"chunked"',
        "chunked\x0b",
    ]
    values += ["chunked\x00", "", ",chunked", "chunked,", "chun ked", "\x0bchunked", "chunked\x7f"]
    body = chunked(t.body)
    for value in values:
        line = f"Transfer-Encoding: {value}"
        few = ("bad_request", "length_required")
        yield _case(f"coding {value!r}", t.request(line, body=body), *few)
        yield _case(f"length, coding {value!r}", t.request(t.size, line, body=body), *few)
        yield _case(f"coding {value!r}, length", t.request(line, t.size, body=body), *few)
        old = t.request(line, body=body, version="HTTP/1.0")
        yield _case(f"coding {value!r} in 1.0", old, *few)
    for name in [
        "Transfer-Encoding ",
        "Transfer-Encoding\t",
        " Transfer-Encoding",
        "Transfer\x00-E",
    ]:
        line = f"{name}: chunked"
        yield _case(f"{name!r}, length", t.request(line, t.size, body=body), "bad_request")
        yield _case(f"length, {name!r}", t.request(t.size, line, body=body), "bad_request")
    for end in ["\n", "\r", "\r\r\n", "\n\n", "\x0b"]:
        line = f"X: a{end}Transfer-Encoding: chunked"
        yield _case(f"coding after {end!r}", t.request(t.size, line, body=body), "bad_request")
    twice = ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"]
    for lines in (twice, twice[::-1], twice[:1] * 2):
        yield _case(f"codings {lines}", t.request(*lines, body=body), *few)
    line = "Transfer-Encoding: chunked"
    get = t.request(line, method="GET", target="/livez", body=chunked(b"x"))
    yield _case("chunked GET", get, *few)


def chunks(t: Target) -> Iterator[Case]:
    """Chunked bodies that are wrong in themselves as well."""
    bodies = {
        "a bomb of tiny chunks": b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n",
        "size of 16 digits": b"FFFFFFFFFFFFFFFF\r\nx",
        "size of 17 digits": b"1FFFFFFFFFFFFFFFF\r\nx",
        "negative size": b"-1\r\nx\r\n0\r\n\r\n",
        "size with a sign": b"+1\r\nx\r\n0\r\n\r\n",
        "size with 0x": b"0x1\r\nx\r\n0\r\n\r\n",
        "size in spaces": b" 1 \r\nx\r\n0\r\n\r\n",
        "no size": b"\r\nx\r\n0\r\n\r\n",
        "an extension": b"1;a=b\r\nx\r\n0\r\n\r\n",
        "a long extension": b"1;" + b"a" * 70_000 + b"\r\nx\r\n0\r\n\r\n",
        "a line feed in an extension": b"1;a\nx\r\n0\r\n\r\n",
        "line feeds alone": b"1\nx\n0\n\n",
        "no end of a chunk": b"1\r\nxx0\r\n\r\n",
        "a chunk too long": b"1\r\nxyz\r\n0\r\n\r\n",
        "no last chunk": b"1\r\nx\r\n",
        "trailers": b"1\r\nx\r\n0\r\nX: y\r\n\r\n",
        "a length in trailers": b"1\r\nx\r\n0\r\nContent-Length: 99\r\n\r\n",
        "many trailers": b"1\r\nx\r\n0\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        "a long trailer": b"1\r\nx\r\n0\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        "zero byte in a size": b"1\x00\r\nx\r\n0\r\n\r\n",
        "many zeros": b"0" * 5_000 + b"1\r\nx\r\n0\r\n\r\n",
    }
    for name, body in bodies.items():
        request = t.request("Transfer-Encoding: chunked", body=body)
        yield _case(name, request, "bad_request", "length_required")


def lines(t: Target) -> Iterator[Case]:
    """Line ends, folds, and bytes that no header holds."""
    good = t.request(t.size)
    head, _, rest = good.partition(b"\r\n\r\n")
    for name, end in {"line feeds": b"\n", "carriage returns": b"\r", "two": b"\r\r\n"}.items():
        yield _case(name, head.replace(b"\r\n", end) + end * 2 + rest, "bad_request")
        yield _case(f"{name} once", good.replace(b"\r\n", end, 1), "bad_request")
    headers = {
        "folded with a space": "X: a\r\n b",
        "folded with a tab": "X: a\r\n\tb",
        "folded length": "Content-Length:\r\n 5",
        "space before the colon": "X : a",
        "tab before the colon": "X\t: a",
        "space in a name": "X Y: a",
        "no colon": CANARY,
        "no name": ": a",
        "zero byte in a name": "X\x00: a",
        "zero byte in a value": "X: a\x00b",
        "bell in a name": "X\x07: a",
        "bell in a value": "X: \x07",
        "delete in a name": "X\x7f: a",
        "delete in a value": "X: \x7f",
        "carriage return in a value": "X: a\rb",
        "line feed in a value": "X: a\nb",
        "a high byte in a name": "X\udcff: a",
        "UTF-8 in a name": "Ü: a",
        "a bracket in a name": "X(: a",
        "a quoted name": '"X": a',
        "at the front of a line": "\x00X: a",
    }
    for name, line in headers.items():
        yield _case(name, t.request(line, t.size), "bad_request")
        yield _case(f"{name}, last", t.request(t.size, line), "bad_request")
    yield _case("folded first line", good.replace(b" HTTP", b"\r\n HTTP", 1), "bad_request")


def hosts(t: Target) -> Iterator[Case]:
    """No host, and more than one."""
    yield _case("no host", t.request(t.size, host=""), "bad_request")
    for second in ["Host: x", "Host: y", "host: y", "Host:", "HOST: x:80"]:
        yield _case(f"a second {second!r}", t.request(second, t.size), "bad_request")
        yield _case(f"a last {second!r}", t.request(t.size, second), "bad_request")


def targets(t: Target) -> Iterator[Case]:
    """Other forms of a target, and other spellings of a path."""
    names = ["http://x", "https://x", "http://x:80", "HTTP://x", "x:80", "file://", "http:/", "x@y"]
    for name in names:
        yield _case(f"{name} before the path", t.request(t.size, target=name + t.path))
    for target in ["*", "", "?", "#", "x", "x:80", "http://x", f"?{CANARY}", t.path[1:], "\\v1"]:
        yield _case(f"target {target!r}", t.request(t.size, target=target))
    spellings = {
        "two slashes": "/" + t.path,
        "two slashes inside": t.path.replace("/v1/", "/v1//"),
        "slash at the end": t.path + "/",
        "dots": "/v1/.." + t.path,
        "dot": "/." + t.path,
        "escaped dots": "/v1/%2e%2e" + t.path,
        "escaped slash": t.path.replace("/v1/", "/v1%2F"),
        "escaped letter": t.path.replace("v", "%76", 1),
        "escaped capital": t.path.replace("v", "%56", 1),
        "escaped digit": t.path[:-1] + f"%{ord(t.path[-1]):x}",
        "escaped zero byte": t.path + "%00",
        "half an escape": t.path + "%",
        "no escape": t.path + "%zz",
        "overlong": t.path.replace("/v1", "/%c0%afv1"),
        "zero byte": t.path + "\x00",
        "tab": t.path + "\t",
        "space": t.path + " x",
        "line feed": t.path + "\nx",
        "high bytes": t.path + "\udcff\udcfe",
        "UTF-8": t.path + "é",
        "backslash": t.path.replace("/v1/", "/v1\\"),
        "semicolon": t.path + ";x=1",
        "suffix": t.path + ".json",
        "upper case": t.path.upper(),
        "wide letters": t.path.replace("v1", "v\uff11"),
        "a long path": "/" + "a" * 9_000,
        "a very long path": "/" + "a" * 70_000,
        "a long query": t.path + "?" + "a" * 70_000,
        "a file": "/etc/passwd",
        "a way up": "/../../../../etc/passwd",
    }
    for name, target in spellings.items():
        yield _case(f"path with {name}", t.request(t.size, target=target), smuggles=False)
        # What is wrong with the request line ends the connection.
        old = t.request(t.size, target=target, version="HTTP/1.0")
        yield _case(f"path with {name} in 1.0", old)


def versions(t: Target) -> Iterator[Case]:
    """Versions that are not spoken here, or none."""
    names = ["HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/2", "HTTP/1"]
    names += ["HTTP/1.1.1", "HTTP/01.1", "http/1.1", "HTPT/1.1", "HTTP/1.10", "HTTP/-1.1"]
    names += ["HTTP/1.x", "HTTP 1.1", "HTTP/1.1 x", "ICE/1.0", "HTTP/1,1", "HTTP/9.9"]
    names += [
        "HTTP/",
        "HTTP",
        "",
        "HTTP/1.1\x00",
        "HTTP/1. 1",
        "HTTP/1.1\t",
        "HTTPS/1.1",
        "UNKNOWN",
    ]
    for name in names:
        yield _case(f"version {name!r}", t.request(t.size, version=name), "bad_request")
    yield _case("no version", f"POST {t.path}\r\n\r\n".encode(), "bad_request")
    yield _case("GET of 0.9", b"GET /livez\r\n", "bad_request")
    yield _case("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))


def methods(t: Target) -> Iterator[Case]:
    """Methods that this path has not."""
    known = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "TRACE", "SEARCH", "LINK"]
    for name in known:
        yield _case(f"method {name}", t.request(t.size, method=name), smuggles=False)
    unknown = ["post", "P0ST", "Post", " POST", "POST\t", "POST\x00", "PÖST", "P", "X" * 9_000, ""]
    unknown += ["CONNECT", "PRI", "POST,GET", "POST\x0b", "_", "GETPOST", "POSTS", "{POST}"]
    for name in unknown:
        yield _case(f"method {name[:9]!r}", t.request(t.size, method=name))


def sizes(t: Target) -> Iterator[Case]:
    """Headers too long, and too many."""
    for size in (9_000, 70_000, 1_000_000):
        yield _case(f"value of {size}", t.request("X: " + "a" * size, t.size), "bad_request")
        yield _case(f"name of {size}", t.request("X" * size + ": a", t.size), "bad_request")
    for count in (200, 2_000, 50_000):
        many = [f"X-{number}: 1" for number in range(count)]
        yield _case(f"{count} headers", t.request(*many, t.size), "bad_request")
        yield _case(f"{count} equal headers", t.request(*["X: 1"] * count, t.size), "bad_request")


def expectations(t: Target) -> Iterator[Case]:
    """Expectations that nobody can meet."""
    for value in ["miracles", "100-continue, x", "200-ok", "", "100 continue", f"100-{CANARY}"]:
        yield _case(f"expect {value!r}", t.request(f"Expect: {value}", t.size), "bad_request")
    coded = t.request("Expect: 100-continue", "Transfer-Encoding: chunked", body=chunked(t.body))
    yield _case("expect, chunked", coded, "length_required")


def bodies(t: Target) -> Iterator[Case]:
    """Whole requests whose body is not what the listener takes."""
    packed = {
        "gzip": gzip.compress(t.body),
        "x-gzip": gzip.compress(t.body),
        "deflate": zlib.compress(t.body),
        "zstd": bytes.fromhex("28b52ffd0458") + t.body,
        "br": b"\x8b\x01\x80" + t.body,
        "compress": b"\x1f\x9d" + t.body,
        "identity": t.body,
        "gzip, gzip": gzip.compress(gzip.compress(t.body)),
        "": t.body,
        CANARY: t.body,
    }
    for coding, body in packed.items():
        size = f"Content-Length: {len(body)}"
        request = t.request(size, f"Content-Encoding: {coding}", body=body)
        few = ("encoding_refused", "bad_length")
        yield _case(f"coded {coding!r}", request, *few, smuggles=False)
        exact = t.request(t.size, f"Content-Encoding: {coding}")
        yield _case(f"coded {coding!r}, right size", exact, "encoding_refused", smuggles=False)
    bomb = gzip.compress(bytes(10_000_000))
    size = f"Content-Length: {len(bomb)}"
    request = t.request(size, "Content-Encoding: gzip", body=bomb)
    yield _case("a bomb", request, "encoding_refused", "bad_length", smuggles=False)
    medias = [
        "",
        "image/png",
        "multipart/form-data; boundary=x",
        "text/html",
        "*/*",
        CANARY,
        "x/y/z",
    ]
    medias += ["application/x-www-form-urlencoded", "application/octet-stream", "text/", ";", "/"]
    for media in medias:
        request = t.request(t.size, media=media)
        yield _case(f"media {media!r}", request, "media_type", smuggles=False)
    for cut in (1, len(t.body) // 2, len(t.body)):
        request = t.request(t.size, body=t.body[cut:])
        more = {"smuggles": False, "hangs_up": True}
        yield _case(f"{cut} bytes missing", request, "truncated", **more)
        yield _case(f"{cut} bytes late", request, "request_timeout", smuggles=False)


def wrong_lengths(t: Target) -> Iterator[Case]:
    """For a listener that knows the length: every other one, all of it there, none of it there."""
    n = len(t.body)
    for size in (0, 1, n - 1, n + 1, 2 * n, 65_536, 10**6, 10**12, 2**63 - 1):
        line = f"Content-Length: {size}"
        whole = t.request(line, body=bytes(min(size, 10**6)))
        yield _case(f"{size} bytes", whole, "bad_length", smuggles=False)
        if size:
            yield _case(
                f"{size} bytes declared", t.request(line, body=b""), "bad_length", smuggles=False
            )
        expect = t.request(line, "Expect: 100-continue", body=b"")
        yield _case(f"{size} bytes announced", expect, "bad_length", smuggles=False)
    yield _case("no length", t.request(body=b""), "length_required", smuggles=False)
    yield _case("no length, a body", t.request(), "length_required", "bad_request", smuggles=False)


def garbage(_: Target) -> Iterator[Case]:
    """Other protocols, and noise."""
    others = {
        "TLS hello": bytes.fromhex("16030100a5010000a10303") + bytes(160),
        "TLS alert": bytes.fromhex("15030300020228"),
        "old SSL hello": bytes.fromhex("802e0103010015000000100000") + bytes(34),
        "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
        "SMTP": b"EHLO example.org\r\nMAIL FROM:<a@example.org>\r\n",
        "Redis": b"*1\r\n$4\r\nPING\r\n",
        "Redis inline": b"FLUSHALL\r\n",
        "memcached": b"get x\r\nset y 0 0 1\r\nz\r\n",
        "proxy protocol": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "proxy protocol 2": bytes.fromhex("0d0a0d0a000d0a515549540a") + bytes(16),
        "DNS": bytes.fromhex("001c00010100000100000000000003777777") + bytes(8),
        "SMB": b"\x00\x00\x00\x45\xffSMBr" + bytes(60),
        "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "a web socket frame": bytes.fromhex("818537fa213d7f9f4d5158"),
        "zeros": bytes(65_536),
        "ones": b"\xff" * 65_536,
        "one zero": b"\x00",
        "letters": b"A" * 65_536,
        "a word": b"GET",
        "colons": b":" * 1_000 + b"\r\n\r\n",
        "spaces": b" " * 10_000 + b"\r\n\r\n",
    }
    for name, data in others.items():
        yield _case(name, data)
    rng = random.Random(20_261_124)
    for number in range(30):
        yield _case(f"noise {number}", rng.randbytes(rng.choice([1, 10, 100, 1_000, 20_000])))


def damaged(t: Target) -> Iterator[Case]:
    """A good request with one byte of its first three lines replaced by one that never fits."""
    good = t.request(t.size)
    rng = random.Random(7)
    for number in range(40):
        at = rng.randrange(good.index(b"Content-Type"))
        wrong = rng.choice(b"\x00\x01\x08\x0b\x7f")
        yield _case(f"damaged {number}", good[:at] + bytes([wrong]) + good[at + 1 :])


GROUPS = {
    it.__name__: it
    for it in (
        *(lengths, codings, chunks, lines, hosts, targets, versions, methods, sizes),
        *(expectations, bodies, wrong_lengths, garbage, damaged),
    )
}
