"""Settings from preprocessor files of every style."""

import json

import pytest

from hippo_jax.errors import HippoError
from hippo_jax.inputs.processor import ProcessorConfig

OLD = {
    "min_pixels": 3136,
    "max_pixels": 12845056,
    "patch_size": 14,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
    "image_processor_type": "Qwen2VLImageProcessor",
}
VIDEO = {
    "size": {"shortest_edge": 7840, "longest_edge": 78400},
    "fps": 2,
    "max_frames": 99,
    "min_frames": 6,
    "patch_size": 16,
    "rescale_factor": 0.01,
    "resample": 3,
}


def read(tmp_path, **files):
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{name}.json").write_text(text)
    return ProcessorConfig.from_directory(tmp_path)


def test_one_old_file_serves_videos_and_images(tmp_path):
    config = read(tmp_path, preprocessor_config=OLD)
    assert (config.min_pixels, config.max_pixels) == (3136, 12845056)
    assert (config.image_min_pixels, config.image_max_pixels) == (3136, 12845056)
    assert (config.mean, config.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert config.fps is None


def test_the_video_file_wins_for_videos(tmp_path):
    config = read(tmp_path, preprocessor_config=OLD, video_preprocessor_config=VIDEO)
    assert (config.min_pixels, config.max_pixels) == (7840, 78400)
    assert (config.image_min_pixels, config.image_max_pixels) == (3136, 12845056)
    assert (config.fps, config.min_frames, config.max_frames) == (2.0, 6, 99)
    assert (config.patch_size, config.factor, config.rescale) == (16, 32, 0.01)
    # What the video file leaves open is the default, not the image file's.
    assert config.mean == ProcessorConfig().mean


def test_the_joint_file_wins_over_all(tmp_path):
    joint = {"video_processor": VIDEO, "image_processor": {"size": {**VIDEO["size"]}}}
    other = {**OLD, "patch_size": 12}
    config = read(
        tmp_path,
        processor_config=joint,
        preprocessor_config=other,
        video_preprocessor_config=other,
    )
    assert (config.patch_size, config.max_pixels, config.image_max_pixels) == (16, 78400, 78400)


def test_a_joint_file_without_parts_is_no_obstacle(tmp_path):
    config = read(tmp_path, processor_config={"processor_class": "X"}, preprocessor_config=OLD)
    assert config.max_pixels == 12845056


def test_min_and_max_pixels_win_over_size(tmp_path):
    config = read(tmp_path, preprocessor_config={**VIDEO, "max_pixels": 10000})
    assert (config.min_pixels, config.max_pixels) == (7840, 10000)


def test_same_numbers_as_the_reference_class(tmp_path):
    # What Hugging Face writes for the defaults of its class must read back as our defaults.
    written = {
        "size": {"longest_edge": 602112, "shortest_edge": 100352},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "rescale_factor": 0.00392156862745098,
        "fps": None,
        "max_frames": 768,
        "min_frames": 4,
        "do_sample_frames": False,
    }
    assert read(tmp_path, video_preprocessor_config=written) == ProcessorConfig()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "no JSON object"),
        ({**OLD, "do_normalize": False}, "do_normalize"),
        ({**OLD, "resample": 2}, "resample 2"),
        ({"size": {"height": 5, "width": 5}}, "shortest_edge"),
        ({"size": 224}, "size"),
        ({**OLD, "max_pixels": 3000}, "below"),
        ({**OLD, "patch_size": 0}, "patch_size 0"),
        ({**OLD, "patch_size": "14"}, "not a number"),
        ({**OLD, "merge_size": 1.5}, "not an integer"),
        ({**OLD, "image_std": [0, 1, 1]}, "std"),
        ({**OLD, "image_mean": [0, 1]}, "mean"),
        ({**OLD, "fps": -1}, "fps"),
        ({**OLD, "rescale_factor": 0}, "rescale"),
    ],
)
def test_refusals(tmp_path, content, message):
    with pytest.raises(HippoError, match=message):
        read(tmp_path, preprocessor_config=content)


def test_a_folder_without_files_is_refused(tmp_path):
    with pytest.raises(HippoError, match="preprocessor_config"):
        ProcessorConfig.from_directory(tmp_path)


def test_max_pixels_of_the_caller():
    config = ProcessorConfig().with_max_pixels(50_000)
    assert (config.min_pixels, config.max_pixels) == (50_000, 50_000)
    assert (config.image_min_pixels, config.image_max_pixels) == (56 * 56, 50_000)
    with pytest.raises(HippoError, match="one visual token"):
        ProcessorConfig().with_max_pixels(783)
