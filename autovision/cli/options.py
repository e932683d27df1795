"""The options and arguments that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

STORE_VARIABLE = "AUTOVISION_STORE"
ADDRESS_VARIABLE = "AUTOVISION_ADDRESS"
RUNTIME_VARIABLE = "AUTOVISION_RUNTIME"

Store = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URI",
        envvar=STORE_VARIABLE,
        help="The store: a folder, file:///path or s3://bucket/prefix. Without it: the folder autovision-store here.",
    ),
]

Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        envvar=ADDRESS_VARIABLE,
        help="Of an API service, such as https://vision.example:8080: it is asked instead of a store.",
    ),
]

TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file", metavar="FILE", help="Holds the token for --address; or AUTOVISION_TOKEN does."
    ),
]

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and everything else on stderr.")
]

License = Annotated[
    list[str] | None,
    typer.Option(
        "--license",
        metavar="SPDX",
        help="Only backbones whose weights have this licence; may be repeated, or name several with commas.",
    ),
]

Runtime = Annotated[
    str,
    typer.Option(
        "--runtime",
        metavar="NAME",
        envvar=RUNTIME_VARIABLE,
        help="What runs the network: auto (the fastest that agrees with PyTorch), evaluated, openvino-f32, "
        "openvino-bf16, openvino-int8, onnx-f32, eager-f32, torch-f32, torch-bf16.",
    ),
]

Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="The same seed draws the same.")]

Prices = Annotated[
    Path | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="A TOML or JSON file with what a CPU, a GPU or a node costs for an hour; or AUTOVISION_PRICES.",
    ),
]

Search = Annotated[str, typer.Argument(metavar="SEARCH", help="A search's id; `search list` shows them.")]

NewClass = Annotated[
    list[str] | None,
    typer.Option("--new-class", metavar="NAME", help="A class that the data set does not know yet."),
]
