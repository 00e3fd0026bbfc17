"""Makes the goldens of this folder from Hugging Face's Qwen2.5-VL processors.

    python tests/inputs/make_goldens.py [--torchvision FOLDER]

Needs torch, transformers and torchvision, the latter for these classes only. Next to a CPU build
of torch the wheel of torchvision cannot load its compiled operators; resizing does not use them,
so they are declared here as empty names. `pip install --no-deps --target FOLDER torchvision==...`
(the version that belongs to the installed torch) puts it where nothing else sees it.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import golden_cases as cases  # noqa: E402
from golden_tools import find_torchvision, sampled_frames  # noqa: E402

GOLDENS = HERE / "goldens"
TOKENIZER = HERE / "tokenizer"
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a tiny assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)


def make_tokenizer() -> None:
    """A byte-level tokenizer with Qwen's control tokens, saved as Hugging Face reads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "i"), ("Ġi", "n"), ("t", "h"), ("o", "n"), ("on", "e"), ("th", "e"), ("s", "s")]
    words = [*alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[3:]),
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(TOKENIZER)


def sampling() -> dict[str, np.ndarray]:
    """Frame indices for many lengths, rates and counts; no indices where the call is refused."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    sample = Qwen2VLVideoProcessor().sample_frames
    rows, indices = sampled_frames(sample, 1600, least=4, least_count=2, refused=(ValueError,))
    return {"cases": rows, "indices": indices}


def sizes() -> dict[str, np.ndarray]:
    """Rows of (height, width, min, max, new height, new width); zeros where refused."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import smart_resize

    random = np.random.default_rng(1)
    bounds = [(100352, 602112), (3136, 12845056), (56 * 56, 28 * 28 * 1280), (784, 4 * 784)]
    rows = []
    for case in range(3000):
        height, width = (int(v) for v in np.exp(random.uniform(0, np.log(5000), 2)))
        if case % 50 == 0:
            height, width = 14 * (1 + case // 50), 42  # halves, which round to even
        low, high = bounds[case % 4]
        try:
            new = smart_resize(height, width, factor=28, min_pixels=low, max_pixels=high)
        except ValueError:
            new = (0, 0)
        rows.append((height, width, low, high, *new))
    return {"rows": np.array(rows, np.int64)}


def pixels() -> dict[str, np.ndarray]:
    """Resized frames, and the patches and grids of videos and an image."""
    import torch
    from transformers.image_utils import PILImageResampling, SizeDict
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    out = {}
    for name, (shape, low, high) in cases.RESIZE.items():
        video = torch.from_numpy(cases.frames(*shape)).permute(0, 3, 1, 2)[None]
        resized = Qwen2VLVideoProcessor().resize(
            video,
            size=SizeDict(shortest_edge=low, longest_edge=high),
            resample=PILImageResampling.BICUBIC,
            factor=28,
        )
        out[f"resized_{name}"] = resized[0].permute(0, 2, 3, 1).numpy()
    for name, (shape, low, high) in cases.VIDEOS.items():
        processor = Qwen2VLVideoProcessor(size={"shortest_edge": low, "longest_edge": high})
        result = processor(videos=[cases.frames(*shape)], return_tensors="np")
        out[f"video_{name}"] = result["pixel_values_videos"]
        out[f"video_{name}_grid"] = result["video_grid_thw"]
    shape, low, high = cases.IMAGE
    processor = Qwen2VLImageProcessor(size={"shortest_edge": low, "longest_edge": high})
    result = processor(images=[cases.frames(*shape)[0]], return_tensors="np")
    out["image"] = result["pixel_values"]
    out["image_grid"] = result["image_grid_thw"]
    return out


def chats() -> dict[str, np.ndarray]:
    """Ids and seconds per grid of chats, by the whole processor."""
    from transformers import AutoTokenizer
    from transformers.models.qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor

    shape, low, high = cases.VIDEOS["odd"]
    image_shape, image_low, image_high = cases.IMAGE
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(size={"shortest_edge": image_low, "longest_edge": image_high}),
        tokenizer,
        Qwen2VLVideoProcessor(size={"shortest_edge": low, "longest_edge": high}),
        chat_template=TEMPLATE,
    )
    out = {}
    for number, (media, messages) in enumerate(cases.CHATS):
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs: dict[str, object] = {}
        if "video" in media:
            inputs["videos"] = [cases.frames(*shape)]
            inputs["video_metadata"] = [
                {"total_num_frames": shape[1], "fps": 4.0, "frames_indices": list(range(shape[1]))}
            ]
        if "image" in media:
            inputs["images"] = [cases.frames(*image_shape)[0]]
        result = processor(text=[text], return_tensors="np", **inputs)
        out[f"ids_{number}"] = result["input_ids"][0].astype(np.int32)
        if "video" in media:
            out[f"seconds_{number}"] = np.asarray(result["second_per_grid_ts"], np.float64)
    return out


def main() -> None:
    kept = find_torchvision(__doc__)
    GOLDENS.mkdir(exist_ok=True)
    make_tokenizer()
    for name, make in {
        "sampling": sampling,
        "sizes": sizes,
        "pixels": pixels,
        "chats": chats,
    }.items():
        np.savez_compressed(GOLDENS / f"{name}.npz", **make())
    total = sum(file.stat().st_size for file in GOLDENS.iterdir())
    print(f"{total / 1e6:.2f} MB in {GOLDENS}")
    del kept


if __name__ == "__main__":
    main()
