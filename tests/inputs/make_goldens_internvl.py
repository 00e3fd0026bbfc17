"""Makes the goldens of InternVL from Hugging Face's processors.

    python tests/inputs/make_goldens_internvl.py [--torchvision FOLDER]

What it needs stands at the head of make_goldens.py.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from inputs import golden_cases_internvl as cases
from inputs import make_goldens
from inputs.golden_cases import frames


def sampling() -> dict[str, np.ndarray]:
    """Frame indices for many lengths, rates and counts; no indices where the call is refused."""
    import torch
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor
    from transformers.video_utils import VideoMetadata

    processor = InternVLVideoProcessor()
    random = np.random.default_rng(0)
    rows, picked = [], []
    for case in range(1200):
        total = int(random.integers(1, (30, 300, 3000, 200_000)[case % 4]))
        source = float(random.choice([4, 10, 15, 24, 24000 / 1001, 25, 29.97, 30, 59.94, 60]))
        fps = float(random.choice([0.1, 0.5, 1, 2, 3, 4, 7.5, 24])) if case % 3 else 0.0
        count = 0 if fps else int(random.integers(1, min(total + 4, 200)))
        if fps and total / source * fps > 150:
            total = max(1, int(150 * source / fps))
        kwargs = {"fps": fps} if fps else {"num_frames": count}
        try:
            indices = processor.sample_frames(
                VideoMetadata(total_num_frames=total, fps=source), **kwargs
            )
        except (ValueError, ZeroDivisionError):
            indices = torch.zeros(0)
        rows.append((total, source, fps, count, len(indices)))
        picked.append(indices.numpy().astype(np.int32))
    return {"cases": np.array(rows, np.float64), "indices": np.concatenate(picked)}


def processor(directory: str) -> object:
    """The whole processor, images as one tile."""
    from transformers import AutoTokenizer
    from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
    from transformers.models.internvl.processing_internvl import InternVLProcessor
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    settings = {
        "size": {"height": cases.SIDE, "width": cases.SIDE},
        "image_mean": cases.MEAN,
        "image_std": cases.STD,
    }
    return InternVLProcessor(
        GotOcr2ImageProcessor(**settings),
        AutoTokenizer.from_pretrained(directory),
        InternVLVideoProcessor(**settings),
        image_seq_length=cases.TOKENS,
        chat_template=cases.TEMPLATE,
    )


def chats(whole: object) -> dict[str, np.ndarray]:
    """Ids and pixels of chats; pixels of the videos one by one."""
    out = {}
    for number, (media, messages) in enumerate(cases.CHATS):
        text = whole.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        inputs: dict[str, object] = {}
        if "video" in media:
            inputs["videos"] = [frames(*cases.VIDEOS["small"])] * media.count("video")
        if "image" in media:
            inputs["images"] = [frames(*cases.IMAGE)[0]]
        result = whole(text=[text], return_tensors="pt", crop_to_patches=False, **inputs)
        out[f"ids_{number}"] = result["input_ids"][0].numpy().astype(np.int32)
        if media == ["image", "video"]:
            out["image_and_video"] = result["pixel_values"].numpy()
    for name, shape in cases.VIDEOS.items():
        result = whole.video_processor(videos=[frames(*shape)], return_tensors="np")
        out[f"video_{name}"] = result["pixel_values_videos"][0]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torchvision", help="folder that torchvision was installed into")
    folder = parser.parse_args().torchvision
    if folder:
        sys.path.insert(0, folder)
    kept = make_goldens.declare_operators()
    with tempfile.TemporaryDirectory() as directory:
        cases.save_tokenizer(make_goldens.TOKENIZER, directory)
        made = {"sampling": sampling(), "chats": chats(processor(directory))}
    for name, arrays in made.items():
        file = make_goldens.GOLDENS / f"internvl_{name}.npz"
        np.savez_compressed(file, **arrays)
        print(f"{file.stat().st_size / 1e6:.2f} MB in {file}")
    del kept


if __name__ == "__main__":
    main()
