"""What the goldens of LLaVA-OneVision were made from, shared by their script and the tests."""

from pathlib import Path
from typing import Any

from inputs.golden_cases import frames

HERE = Path(__file__).parent
GOLDENS = HERE / "goldens" / "llava_onevision.npz"

# The published template, in its own order: a message's videos before its text.
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>"
    "{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}<video>"
    "{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# name -> frames(...) arguments, side of the square, mean, std: shrinks, grows, one of each, as is.
HALF = (0.5, 0.5, 0.5)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
VIDEOS: dict[str, tuple[tuple[int, int, int, int], int, Any, Any]] = {
    "shrink": ((11, 2, 130, 171), 100, HALF, HALF),
    "grow": ((12, 1, 35, 51), 98, *CLIP),
    "wide": ((13, 1, 40, 190), 100, HALF, HALF),
    "keep": ((14, 1, 56, 56), 56, HALF, HALF),
}
# Of a frame at the published 384 pixels every 23rd row and column is kept.
LARGE = (15, 1, 120, 200)
STRIDE = 23

# Prompts of the whole processor on a video of three frames of 100 pixels (7 x 7 patches).
SIDE, PATCHES = 100, 49
VIDEO = (16, 3, 60, 80)
CHATS: list[tuple[int, list[dict[str, Any]]]] = [
    (
        1,
        [
            {
                "role": "user",
                "content": [{"type": "video"}, {"type": "text", "text": "What moves?"}],
            }
        ],
    ),
    (
        2,
        [
            {"role": "system", "content": [{"type": "text", "text": "Answer in one word."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Is this  in it?\n\n"},
                    {"type": "video"},
                    {"type": "video"},
                    {"type": "text", "text": "Grüße, 漢字"},
                ],
            },
        ],
    ),
    (0, [{"role": "user", "content": [{"type": "text", "text": "Only text."}]}]),
    (
        1,
        [
            {
                "role": "user",
                "content": [{"type": "video"}, {"type": "text", "text": "One?"}],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            {"role": "user", "content": [{"type": "text", "text": "Sure?"}]},
        ],
    ),
]


def tokenizer() -> Any:
    """The tokenizer of this folder with the placeholders and template of LLaVA-OneVision."""
    from transformers import AutoTokenizer

    found = AutoTokenizer.from_pretrained(HERE / "tokenizer")
    found.add_special_tokens({"additional_special_tokens": ["<image>", "<video>"]})
    found.chat_template = TEMPLATE
    return found


def video(seed: int, count: int, height: int, width: int) -> Any:
    """uint8 ``[F, H, W, 3]``."""
    return frames(seed, count, height, width)
