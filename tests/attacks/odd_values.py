"""What mutations put in a request's places."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

LONG, HUGE_DIGITS = 100_000, 5_000
# JSON that Python's encoder would not write.
TOKENS = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "9" * HUGE_DIGITS, "-0", "1.5"),
    *("9" * 400, "1" + "0" * 400 + ".5", "2147483648", "-2147483649", "9223372036854775808"),
    *("18446744073709551616", "0.1e1", "1E400", "[" * 60 + "]" * 60, '{"a":' * 60 + "1" + "}" * 60),
)
TEXTS = (
    *("", " ", "\x00", "a\x00b", "\x01\x02\x07\x1b", "\r\n", "a\r\nX-Evil: 1", "\ufffe\uffff", "é"),
    *("\U0001f600", "\u202e\u200b", "NaN", "nan", "Infinity", "inf", "-inf", "1e999", "0x3", "+3"),
    *("1_0", "\u0663", " 7 ", "-1", "0", "9" * HUGE_DIGITS, "9" * 25, "1.5", "1e3", "true", "True"),
    *("null", "None", "undefined", "[]", "{}", "[[[", '{"a":', "../../../etc/passwd", "/", ".."),
    *("%00", "%", "%zz", "%FF", "${jndi:ldap://x}", "{{7*7}}", "'; DROP TABLE x; --", "<a>&b;</a>"),
    *("]]>", "<!--", "a,b;c", '"', "\\", "*", "arn:", "arn:aws:s3:::", "s3://", "s3://b\x00/k"),
    *("2026-13-45T99:99:99Z", "0000-00-00", "9999-12-31T23:59:59.999999999Z", "-1e20", "1e20"),
    *("https://[::1", "http://\x00", "x" * 300, "é" * 2000, "(" * 200, "(a+)+$", "\\", "[a-", "?:"),
)
DOCTYPE = '<!DOCTYPE a [<!ENTITY x "y">]>'


HEADERS: Mapping[str, tuple[str, ...]] = {
    "Content-Type": (
        "",
        "x",
        "text/html",
        "application/x-www-form-urlencoded",
        "multipart/form-data",
    ),
    "Content-Encoding": ("gzip", "br", "aws-chunked", "gzip, gzip", "\xff"),
    "Content-MD5": ("", "x", "AAAAAAAAAAAAAAAAAAAAAA==", "\xff\xfe"),
    "X-Amz-Content-Sha256": (
        *(
            "",
            "x",
            "UNSIGNED-PAYLOAD",
            "0" * 64,
            "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
            "STREAMING-X",
        ),
        *("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"),
    ),
    "X-Amz-Decoded-Content-Length": ("", "x", "-1", "+3", "0x3", "9" * HUGE_DIGITS, "\xb2", "3_0"),
    "X-Amz-Target": (
        "",
        ".",
        "SageMaker.",
        "SageMaker.DescribeModel",
        "Logs_20140328.X",
        "a" * 5000,
    ),
    "X-Amz-Date": ("", "x", "20260101T000000Z", "99999999T999999Z"),
    "X-Amz-Copy-Source": ("", "/", "ledger", "ledger/plain", "%00/%00", "ledger/plain?versionId=x"),
    "X-Amz-Copy-Source-Range": ("bytes=0-", f"bytes=0-{'9' * HUGE_DIGITS}", "bytes=٣-٤", "x"),
    "X-Amz-Tagging": ("a", "a=b&a=c", "%FF=%FF", "&".join(f"a{n}=b" for n in range(40)), "=" * 500),
    "X-Amz-Acl": ("public-read", "x", ""),
    "X-Amz-Storage-Class": ("GLACIER", "x", ""),
    "X-Amz-Server-Side-Encryption": ("x", "AES256", "aws:kms"),
    "X-Amz-Checksum-Crc32": ("", "x", "AAAAAA==", "9" * 1000),
    "X-Amz-Sdk-Checksum-Algorithm": ("", "x", "CRC32", "XXHASH64"),
    "X-Amz-Meta-X": ("", "\xff\xfe", "a" * 3000, "=?UTF-8?Q?=00?=", "\x01"),
    "X-Amz-Expected-Bucket-Owner": ("", "x", "000000000000", "9" * HUGE_DIGITS),
    "Range": (
        *(
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            f"bytes={'9' * HUGE_DIGITS}-",
            f"bytes=-{'9' * HUGE_DIGITS}",
        ),
        *("bytes=0-1,3-4", "bytes=٣-٤", "x", "bytes=0-0", "bytes = 1 - 2", "bytes=99999999999-"),
    ),
    "If-Modified-Since": (
        "",
        "x",
        "9" * HUGE_DIGITS,
        "Fri, 99 Foo 99999 99:99:99 GMT",
        "1e999",
        "-1",
    ),
    "If-Match": ("", "*", '"' * 3000, "\xff"),
    "If-None-Match": ("*", "", ",,,,", "W/" * 300),
    "Expect": ("x", "200-ok"),
    "Accept": ("", "x", "application/cbor", "*/*;q=nan"),
    "Expires": ("", "0", "x", "Fri, 99 Foo 99999 99:99:99 GMT", "9" * HUGE_DIGITS),
    "Smithy-Protocol": ("rpc-v2-cbor", "x"),
    "X-Amzn-SageMaker-Target-Variant": ("", "\xff", "a" * 3000),
    "X-Http-Method-Override": ("DELETE",),
    "Cookie": ("a=b; " * 1000,),
}


TRAILERS = (
    *(b"", b"", b"x-amz-checksum-crc32:AAAAAA==\r\n", b"x-amz-checksum-crc32:\xff\xfe\r\n"),
    *(b"x-amz-checksum-crc32\r\n", b":\r\n", b"\x00\r\n", b"a:b\r\n" * 3000, b"x:" + b"a" * 20_000),
)
FORM_TAILS = (
    *(b"&%FF=%FE", b"&\xff\xfe=1", b"&%", b"&%zz=%zz", b"&=", b"&&&&", b"&a", b";a=b"),
    *(
        b"&a=%00",
        b"&+=+",
        b"\r\n",
        b"#x",
        b"&a=" + b"b" * LONG,
        b"&x=1" * 900,
        b"&\x00=\x00",
    ),
    *(
        b"&Action=DeleteRole",
        b"&Version=2000-01-01",
        b"&X-Amz-Signature=00",
        b"&Signature=0",
    ),
)
PATH_PARTS = (
    *(
        "",
        ".",
        "..",
        "%00",
        "%2F",
        "%2e%2e",
        "%FF",
        "%",
        "%zz",
        "%C0%AF",
        "%0A",
        "%0d%0aX:1",
    ),
    *(
        "a" * 1100,
        "%F0%9F%98%80",
        "*",
        ";",
        "a;b=c",
        "+",
        "%20",
        "~",
        "%7F",
        "é".encode().decode("latin-1"),
    ),
    *(
        quote("é" * 600),
        "\\",
        "a%3Fb",
        "a%23b",
        "%25",
        "-",
        "_",
        "X" * 64,
        "127.0.0.1",
        "[::1]",
    ),
)
CHUNK_SIZES = (
    *(
        "0x3",
        "+3",
        "-3",
        " 3",
        "3 ",
        "3_0",
        "\xb2",
        "",
        "g",
        "3;",
        "3;a",
        "3;chunk-signature=x",
    ),
    *("f" * HUGE_DIGITS, "3;" + "a" * 20_000, "00000003", "3\n", "3.0", "1e1"),
)
