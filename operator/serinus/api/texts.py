"""The texts in a ModelDeployment that have a form: names, URIs, digests."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from serinus.api.cel import Matching, quote

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_VALUE = "[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
# Printable ASCII without the quote, and without $, which Kubernetes would expand in $(NAME).
_VISIBLE = "[!#%-~]*"
LABEL_KEY = rf"^({_LABEL}([.]{_LABEL})*/)?{_VALUE}$"
"""Pattern of a label's key."""
_SCHEME = "^(https?|pvc|file)://"
_URI = (
    rf"^(https?://[A-Za-z0-9.:\[\]-]+(/{_VISIBLE})?"
    rf"|pvc://{_LABEL}([.]{_LABEL})*(/{_VISIBLE})?"
    rf"|file:///{_VISIBLE})$"
)
_URI_ADVICE = (
    "write https://HOST/PATH, http://HOST/PATH, pvc://CLAIM/PATH or file:///PATH, "
    "without spaces, $, user name or password"
)


DnsLabel = Annotated[
    str, Matching(f"^{_LABEL}$", "write at most 63 of a-z, 0-9 and -, with a letter or digit at both ends", 63)
]
"""A name as of a Service or a namespace."""

DnsName = Annotated[
    str,
    Matching(rf"^{_LABEL}([.]{_LABEL})*$", "write a-z, 0-9, - and ., with a letter or digit at both ends", 253),
]
"""A name as of most Kubernetes objects."""

Hostname = Annotated[
    str,
    Matching(
        rf"^([*][.])?{_LABEL}([.]{_LABEL})*$",
        "write a host name in lower case without scheme, port or path, for example fraud.example.com or *.example.com",
        253,
        (
            (
                r"^[0-9]+([.][0-9]+){3}$",
                "a Gateway routes by host name, not by IP address: write a host name or remove hostnames",
            ),
        ),
    ),
]
"""A host name of a Gateway route; the first label may be *."""

ColumnName = Annotated[
    str,
    Matching(r"^[A-Za-z0-9_]([-A-Za-z0-9_. ]*[A-Za-z0-9_])?$", "write a name as the model has it, without commas", 128),
]
"""The name of an input, an output or a column."""

PathPrefix = Annotated[
    str,
    Matching(
        r"^/([-A-Za-z0-9._~!&'()*+,;=:@/]|%[0-9a-fA-F]{2})*$",
        "write a path that starts with /, without spaces, ? and #, for example /fraud",
        256,
        ((r"//|/[.][.]?(/|$)|%2[fF]", "write a path without //, /./, /../ and %2F"),),
    ),
]
"""The path prefix of a Gateway route."""

Argument = Annotated[str, Field(max_length=1024)]
"""One word of a command line."""

EnvName = Annotated[
    str, Matching(r"^[A-Za-z_][A-Za-z0-9_]*$", "write a name of letters, digits and _, such as SERINUS_INSTANCES", 128)
]
"""The name of an environment variable."""

SecretKey = Annotated[
    str, Matching(r"^[-._a-zA-Z0-9]+$", "write a key as Secrets have it: letters, digits, '-', '_' and '.'", 253)
]
"""A key of a Secret's data."""

LabelKey = Annotated[
    str,
    Matching(
        LABEL_KEY,
        "write a key as labels and taints have it, for example nvidia.com/gpu or disktype",
        317,
    ),
]
"""Key of a label or taint."""

LabelValue = Annotated[
    str,
    Matching(f"^({_VALUE})?$", "write at most 63 letters, digits, -, _ and ., with a letter or digit at both ends", 63),
]
"""Value of a label or taint."""

VersionName = Annotated[
    str,
    Matching(
        f"^{_VALUE}$",
        "write letters, digits, -, _ and ., with a letter or digit at both ends, for example 2026-11-01",
        63,
    ),
]
"""A version for people; it is a label's value too."""

ContainerImage = Annotated[
    str, Matching("^[A-Za-z0-9][-A-Za-z0-9._/:@]*$", "write an image as registry/name:tag or name@sha256:...", 512)
]
"""A container image."""

LogUrl = Annotated[
    str,
    Matching(
        rf"^(https?|kafka)://[A-Za-z0-9.:,\[\]-]+/{_VISIBLE}$",
        "write https://HOST/PATH, or kafka://BROKER:9092/TOPIC, without spaces, $, user name or password",
        1024,
    ),
]
"""Where predictions are written."""

Digest = Annotated[
    str,
    Matching(
        "^sha256:[0-9a-f]{64}$",
        "digest must be sha256: and 64 lower-case hex digits; run `serinus-runtime digest DIR`",
        128,
    ),
]
"""The digest of a model directory."""

ModelUri = Annotated[
    str,
    Matching(
        _URI,
        _URI_ADVICE,
        1024,
        ((r"/[.][.](/|$)", "write the path without /../"),),
        f"self.matches({quote(_SCHEME)}) ? {quote(_URI_ADVICE)} : self.matches('^[A-Za-z][A-Za-z0-9+.-]{{0,20}}:')"
        " ? 'the scheme ' + self.split(':')[0] + ' is not supported yet; use https://, http://, pvc:// or file://'"
        " : 'write where the model lies with its scheme: https://, http://, pvc:// or file://'",
    ),
]
"""Where a model lies."""
