"""Makes goldens/llava_onevision.npz from Hugging Face's LLaVA-OneVision processors.

    python tests/inputs/make_goldens_llava_onevision.py [--torchvision FOLDER]

Needs what make_goldens.py needs, and deals with torchvision as that does.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from inputs import golden_cases_llava_onevision as cases
from inputs.make_goldens import declare_operators


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
    from transformers.video_utils import VideoMetadata

    made, random = processor(384, cases.HALF, cases.HALF), np.random.default_rng(0)
    rows, picked = [], []
    for case in range(600):
        total = int(random.integers(1, (30, 300, 3000, 200_000)[case % 4]))
        source = float(random.choice([4, 10, 15, 24, 24000 / 1001, 25, 29.97, 30, 59.94, 60]))
        fps = float(random.choice([0.1, 0.5, 1, 2, 3, 4, 7.5, 24])) if case % 3 else 0.0
        count = 0 if fps else int(random.integers(1, min(total + 4, 200)))
        if fps and total / source * fps > 150:
            total = max(1, int(150 * source / fps))
        kwargs = {"fps": fps} if fps else {"num_frames": count}
        try:
            indices = made.sample_frames(
                VideoMetadata(total_num_frames=total, fps=source), **kwargs
            )
        except ValueError:
            indices = np.zeros(0)
        rows.append((total, source, fps, count, len(indices)))
        picked.append(np.asarray(indices, np.int32))
    return {"cases": np.array(rows, np.float64), "indices": np.concatenate(picked)}


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
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torchvision", help="folder that torchvision was installed into")
    folder = parser.parse_args().torchvision
    if folder:
        sys.path.insert(0, folder)
    kept = declare_operators()
    np.savez_compressed(cases.GOLDENS, **pixels(), **sampling(), **chats())
    print(f"{cases.GOLDENS.stat().st_size / 1e3:.0f} kB in {cases.GOLDENS}")
    del kept


if __name__ == "__main__":
    main()
