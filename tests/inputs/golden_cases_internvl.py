"""What InternVL's goldens were made from, shared by make_goldens_internvl.py and the tests."""

from typing import Any

from inputs import golden_cases

SIDE = 84
TOKENS = 9
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PLACEHOLDERS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<IMG_CONTEXT>\n"
    "{% elif part['type'] == 'video' %}<video>\n"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# name -> frames(...) arguments: grows, shrinks with another aspect.
VIDEOS = {"small": (8, 2, 64, 48), "large": (10, 1, 240, 320)}
IMAGE = (9, 1, 70, 100)

# Chats with their media: "video" and "image" stand for VIDEOS["small"] and IMAGE.
CHATS: list[tuple[list[str], list[dict[str, Any]]]] = [
    *golden_cases.CHATS,
    (
        ["video", "video"],
        [
            {
                "role": "user",
                "content": [
                    {"type": "video"},
                    {"type": "video"},
                    {"type": "text", "text": "Frame1: which is it?"},
                ],
            }
        ],
    ),
]


def save_tokenizer(source: Any, directory: Any) -> None:
    """The little Qwen tokenizer with InternVL's tokens behind its own, and the template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, extra_special_tokens=PLACEHOLDERS)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(directory)
