"""``--int8 {draft,target,both}``, which several commands take."""

from __future__ import annotations

from typing import Any


def add_int8(parser: Any) -> None:
    """Declare the option."""
    parser.add_argument(
        "--int8",
        choices=("draft", "target", "both"),
        help="keep the kernels of these in int8: a quarter of float32, half of bfloat16; an int8"
        " draft never changes the answer, an int8 target is another model",
    )


def int8_roles(int8: str | None) -> dict[str, Any]:
    """The arguments of ``load_pair`` and ``plan_memory``."""
    return {
        f"quantize_{role}": "int8" if int8 in (role, "both") else None
        for role in ("target", "draft")
    }
