"""Makes goldens/qwen3_vl.npz from Hugging Face's Qwen3-VL processors.

    python tests/inputs/make_goldens_qwen3_vl.py [--torchvision FOLDER]

What it needs stands at the head of make_goldens.py.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import golden_cases as cases  # noqa: E402
from golden_tools import find_torchvision, sampled_frames  # noqa: E402
from make_goldens import GOLDENS, TEMPLATE, TOKENIZER  # noqa: E402


def sampling() -> dict[str, np.ndarray]:
    """Frame indices for many lengths, rates and counts; count and rate 0 are not given."""
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    rows, indices = sampled_frames(
        Qwen3VLVideoProcessor().sample_frames,
        900,
        lengths=(12, 300, 3000, 60_000),
        most_frames=120,
        most_count=150,
        beyond=0,
        default_rate=2.0,
    )
    return {"sampling": rows, "indices": indices}


def sizes() -> dict[str, np.ndarray]:
    """Rows of (frames, height, width, min, max, new height, new width); zeros where refused."""
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    random = np.random.default_rng(1)
    bounds = [(131072, 786432), (4096, 25165824), (32 * 32, 4 * 32 * 32), (65536, 65536)]
    rows = []
    for case in range(2000):
        frames = int(random.integers(2, 90))
        height, width = (int(v) for v in np.exp(random.uniform(0, np.log(4000), 2)))
        if case % 50 == 0:
            height, width = 16 * (1 + case // 50), 48  # halves, which round to even
        low, high = bounds[case % 4]
        try:
            new = smart_resize(frames, height, width, factor=32, min_pixels=low, max_pixels=high)
        except ValueError:
            new = (0, 0)
        rows.append((frames, height, width, low, high, *new))
    return {"sizes": np.array(rows, np.int64)}


def processors():
    """Of videos and of images, as the published checkpoints set them up."""
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor
    from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor

    low, high = cases.QWEN3_BOUNDS
    video = Qwen3VLVideoProcessor(size={"shortest_edge": low, "longest_edge": high})
    low, high = cases.QWEN3_IMAGE_BOUNDS
    image = Qwen2VLImageProcessor(
        size={"shortest_edge": low, "longest_edge": high},
        patch_size=16,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return video, image


def pixels() -> dict[str, np.ndarray]:
    """The patches and grids of videos and an image."""
    video, image = processors()
    out = {}
    for name, shape in cases.QWEN3_VIDEOS.items():
        result = video(videos=[cases.frames(*shape)], do_sample_frames=False, return_tensors="np")
        out[f"video_{name}"] = result["pixel_values_videos"]
        out[f"video_{name}_grid"] = result["video_grid_thw"]
    result = image(images=[cases.frames(*cases.IMAGE[0])[0]], return_tensors="np")
    return out | {"image": result["pixel_values"], "image_grid": result["image_grid_thw"]}


def chats() -> dict[str, np.ndarray]:
    """Ids of chats, by the whole processor, of videos sampled by default.

    transformers 4 put the timestamped frames in the place of a video's start token, placeholder and
    end token; transformers 5 in the place of the placeholder alone. ``ids`` are the former (a
    template without the outer tokens makes 5 give them), ``outer`` the latter.
    """
    from transformers import AutoTokenizer
    from transformers.models.qwen3_vl import Qwen3VLProcessor

    video, image = processors()
    marks = "<|vision_start|><|video_pad|><|vision_end|>"
    out = {}
    for kind, template in (("ids", TEMPLATE.replace(marks, "<|video_pad|>")), ("outer", TEMPLATE)):
        assert (marks in template) is (kind == "outer")
        tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
        processor = Qwen3VLProcessor(image, tokenizer, video, chat_template=template)
        for number, (media, messages) in enumerate(cases.CHATS):
            text = processor.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
            inputs: dict[str, object] = {}
            if "video" in media:
                shape = cases.QWEN3_VIDEOS["long"]
                metadata = {"total_num_frames": shape[1], "fps": cases.QWEN3_FPS}
                inputs |= {"videos": [cases.frames(*shape)], "video_metadata": [metadata]}
            if "image" in media:
                inputs["images"] = [cases.frames(*cases.IMAGE[0])[0]]
            result = processor(text=[text], return_tensors="np", **inputs)
            out[f"{kind}_{number}"] = result["input_ids"][0].astype(np.int32)
            if "video" in media:
                out["sampled_grid"] = result["video_grid_thw"]
                out["sampled"] = result["pixel_values_videos"].astype(np.float16)
    return out


def main() -> None:
    kept = find_torchvision(__doc__)
    made = sampling() | sizes() | pixels() | chats()
    np.savez_compressed(GOLDENS / "qwen3_vl.npz", **made)
    print({name: array.shape for name, array in made.items()})
    del kept


if __name__ == "__main__":
    main()
