"""Makes goldens/llava_onevision.npz from Hugging Face's LLaVA-OneVision processors.

    python tests/inputs/make_goldens_llava_onevision.py [--torchvision FOLDER]

Needs what make_goldens.py needs, and deals with torchvision as that does.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from inputs import golden_cases_llava_onevision as cases
from inputs.golden_tools import find_torchvision, sampled_frames


def processor(side: int, mean: tuple[float, ...], std: tuple[float, ...]):
    from transformers import LlavaOnevisionVideoProcessor

    size = {"height": side, "width": side}
    return LlavaOnevisionVideoProcessor(size=size, image_mean=list(mean), image_std=list(std))


def pixels() -> dict[str, np.ndarray]:
    """Preprocessed videos, float32 [F, 3, side, side]."""
    out = {}
    for name, (shape, side, mean, std) in cases.VIDEOS.items():
        made = processor(side, mean, std)(videos=[cases.video(*shape)], return_tensors="np")
        out[f"video_{name}"] = made["pixel_values_videos"][0]
    large = processor(384, cases.HALF, cases.HALF)
    made = large(videos=[cases.video(*cases.LARGE)], return_tensors="np")
    out["large"] = made["pixel_values_videos"][0][..., :: cases.STRIDE, :: cases.STRIDE]
    return out


def sampling() -> dict[str, np.ndarray]:
    """Frame indices for many lengths, rates and counts; none where the call is refused."""
    sample = processor(384, cases.HALF, cases.HALF).sample_frames
    rows, indices = sampled_frames(sample, 600, refused=(ValueError,))
    return {"cases": rows, "indices": indices}


def chats() -> dict[str, np.ndarray]:
    """Ids of chats, by the whole processor."""
    from transformers import LlavaOnevisionImageProcessor, LlavaOnevisionProcessor

    whole = LlavaOnevisionProcessor(
        LlavaOnevisionImageProcessor(),
        cases.tokenizer(),
        processor(cases.SIDE, cases.HALF, cases.HALF),
        num_image_tokens=cases.PATCHES,
        vision_feature_select_strategy="full",
        chat_template=cases.TEMPLATE,
    )
    out = {}
    for number, (videos, messages) in enumerate(cases.CHATS):
        text = whole.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        given = {"videos": [cases.video(*cases.VIDEO)] * videos} if videos else {}
        made = whole(text=[text], return_tensors="np", **given)
        out[f"ids_{number}"] = made["input_ids"][0].astype(np.int32)
    return out


def main() -> None:
    kept = find_torchvision(__doc__)
    np.savez_compressed(cases.GOLDENS, **pixels(), **sampling(), **chats())
    print(f"{cases.GOLDENS.stat().st_size / 1e3:.0f} kB in {cases.GOLDENS}")
    del kept


if __name__ == "__main__":
    main()
