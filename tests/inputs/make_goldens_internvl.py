"""Makes the goldens of InternVL from Hugging Face's processors.

    python tests/inputs/make_goldens_internvl.py [--torchvision FOLDER]

What it needs stands at the head of make_goldens.py.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from inputs import golden_cases_internvl as cases
from inputs import make_goldens
from inputs.golden_cases import frames
from inputs.golden_tools import find_torchvision, sampled_frames


def sampling() -> dict[str, np.ndarray]:
    """Frame indices for many lengths, rates and counts; no indices where the call is refused."""
    from transformers.models.internvl.video_processing_internvl import InternVLVideoProcessor

    refused = (ValueError, ZeroDivisionError)
    rows, indices = sampled_frames(InternVLVideoProcessor().sample_frames, 1200, refused=refused)
    return {"cases": rows, "indices": indices}


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
    kept = find_torchvision(__doc__)
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
