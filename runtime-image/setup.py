"""With SERINUS_COMPILE=1 the request path is compiled (mypyc, a C compiler and Python's headers are needed); else not.

The Python files are in the wheel either way: another Python than the one that it was compiled for runs them instead.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

# What every request goes through. Classes that msgspec decodes into stay out: mypyc drops what it needs to know.
COMPILED = (
    "app",
    "asked",
    "batching",
    "costs",
    "fastjson",
    "http/exchange",
    "http/heads",
    "http/protocol",
    "http/reading",
    "http/site",
    "inference",
    "ingress/http",
    "joined",
    "metrics",
    "oip",
    "oiptensors",
    "predictionlog",
    "proxy/account",
    "proxy/app",
    "proxy/breaker",
    "proxy/client",
    "proxy/desk",
    "proxy/headers",
    "proxy/meters",
    "proxy/passage",
    "proxy/pool",
    "queueerrors",
    "scheduling",
    "state",
    "statistics",
    "tickets",
    "waiting",
)

modules = []
if os.environ.get("SERINUS_COMPILE") == "1":
    from mypyc.build import mypycify

    modules = mypycify(
        ["--strict", *(f"serinus_runtime/{name}.py" for name in COMPILED)],
        opt_level="3",
        debug_level="0",
        group_name="serinus_runtime",
    )
    modules.append(
        Extension(
            "serinus_runtime._fast",
            [f"serinus_runtime/{name}.c" for name in ("_fast", "_head", "_line")],
            depends=["serinus_runtime/_fast.h"],
            extra_compile_args=["-O3"],
        )
    )
setup(ext_modules=modules)
