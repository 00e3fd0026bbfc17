"""Makes goldens/qwen2_vl.npz from Hugging Face's whole processor of Qwen2-VL.

    python tests/inputs/make_goldens_qwen2_vl.py [--torchvision FOLDER]

What it needs stands at the head of make_goldens.py, whose goldens of sizes and of many samplings
are of this family's video processor too. Here files of a checkpoint go in, and prompts with media.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import golden_cases as cases  # noqa: E402
from golden_tools import find_torchvision  # noqa: E402
from make_goldens import GOLDENS, TEMPLATE, TOKENIZER  # noqa: E402


def processor(folder: Path) -> Any:
    """As it reads a checkpoint directory."""
    from transformers import Qwen2VLProcessor

    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(cases.QWEN2_FILE))
    found = Qwen2VLProcessor.from_pretrained(folder)
    assert type(found) is Qwen2VLProcessor and found.chat_template == TEMPLATE
    return found


def media(names: list[str]) -> dict[str, list[Any]]:
    """Those of a chat, one of each kind at most."""
    given: dict[str, list[Any]] = {}
    if "video" in names:
        given["videos"] = [cases.frames(*cases.QWEN2_VIDEO)]
        metadata = {"total_num_frames": cases.QWEN2_VIDEO[1], "fps": cases.QWEN2_FPS}
        given["video_metadata"] = [metadata]
    if "image" in names:
        given["images"] = [cases.frames(*cases.IMAGE[0])[0]]
    return given


def samples(whole: Any) -> dict[str, np.ndarray]:
    """The patches and grids of the video, sampled in every way."""
    out = {}
    for name, asked in cases.QWEN2_SAMPLES.items():
        made = whole.video_processor(
            **media(["video"]), do_sample_frames=bool(asked), return_tensors="np", **asked
        )
        out[f"{name}_pixels"] = made["pixel_values_videos"].astype(np.float16)
        out[f"{name}_grid"] = made["video_grid_thw"]
    return out


def batch(whole: Any) -> dict[str, np.ndarray]:
    """All chats as one batch padded on the left, videos sampled at the first rate."""
    texts: list[str] = []
    given: dict[str, list[Any]] = {}
    for names, messages in cases.CHATS:
        texts.append(
            whole.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )
        for name, items in media(names).items():
            given.setdefault(name, []).extend(items)
    made = whole(
        text=texts,
        padding=True,
        padding_side="left",
        do_sample_frames=True,
        return_tensors="np",
        **cases.QWEN2_SAMPLES["rate"],
        **given,
    )
    pixels = ("pixel_values", "pixel_values_videos")
    return {
        f"batch_{name}": np.asarray(x).astype(np.float16 if name in pixels else np.int32)
        for name, x in made.items()
    }


def main() -> None:
    kept = find_torchvision(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        whole = processor(Path(folder))
        made = samples(whole) | batch(whole)
    file = GOLDENS / "qwen2_vl.npz"
    np.savez_compressed(file, **made)
    print(f"{file.stat().st_size / 1e3:.0f} kB", {name: x.shape for name, x in made.items()})
    del kept


if __name__ == "__main__":
    main()
