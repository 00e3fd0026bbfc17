"""LLaVA-OneVision's inputs against the goldens of its processors, for tests and for mutants."""

import numpy as np
from inputs import golden_cases_llava_onevision as cases

import hippo_jax as hj
from hippo_jax.architectures.llava_onevision.processor import Processor
from hippo_jax.inputs.chat import encode_row
from support import families, tiny_llava

ONE_LEVEL = 1 / 255 / 0.2613  # in the values of the channel with the smallest deviation
SMALL = Processor(side=cases.SIDE, mean=cases.HALF, std=cases.HALF)


def goldens() -> dict[str, np.ndarray]:
    """By name."""
    return dict(np.load(cases.GOLDENS))


def video(shape: tuple[int, int, int, int]) -> hj.Video:
    """Of a case."""
    return hj.Video(cases.video(*shape), 4.0)


def close_pixels(got: np.ndarray, expected: np.ndarray) -> None:
    """Equal but for one level where a float32 sum lands on the border of two."""
    assert got.dtype == np.float32 and got.shape == expected.shape
    difference = np.abs(got - expected)
    assert difference.max() <= 1.01 * ONE_LEVEL
    assert (difference > 1e-6).mean() < 2e-3


def check_pixels() -> None:
    """Frames that shrink, grow, do both or neither; and one of the published 384 pixels, of which
    27 patches see 378."""
    expected = goldens()
    for name, (shape, side, mean, std) in cases.VIDEOS.items():
        media = Processor(side=side, mean=mean, std=std).encode_video(video(shape))
        assert (media.kind, media.grid) == ("video", (shape[1], side // 14, side // 14))
        close_pixels(media.pixels, tiny_llava.patches(expected[f"video_{name}"]))
    media = Processor(mean=cases.HALF, std=cases.HALF).encode_video(video(cases.LARGE))
    assert media.grid == (1, 27, 27)
    seen = tiny_llava.whole(media.pixels, 378)[0, :, :: cases.STRIDE, :: cases.STRIDE]
    close_pixels(seen, expected["large"][0][:, : seen.shape[1], : seen.shape[2]])


def check_sampling() -> None:
    """Indices by rate and by count; what the reference refuses is refused, or all frames."""
    expected = goldens()
    rows, indices = expected["cases"], expected["indices"]
    starts = np.cumsum([0, *rows[:, 4].astype(int)])
    refused = beyond = 0
    for case, start, stop in zip(rows, starts[:-1], starts[1:], strict=True):
        total, source, fps, count = int(case[0]), case[1], case[2] or None, int(case[3]) or None
        theirs = indices[start:stop].tolist()
        if not theirs and count:
            refused += 1
            try:
                SMALL.frame_indices(total, source, num_frames=count)
            except hj.HippoError as error:
                assert "exceeds" in str(error)
            else:
                raise AssertionError(f"{count} of {total} frames")
            continue
        if not theirs:  # a rate above the video's
            beyond += 1
            theirs = list(range(total))
        assert SMALL.frame_indices(total, source, fps=fps, num_frames=count).tolist() == theirs
    assert refused > 3 and beyond > 3


def check_ids() -> None:
    """Ids of chats; also where a message is a plain text, which the template would leave out."""
    expected, tokenizer = goldens(), cases.tokenizer()
    config = families.model(tiny_llava.ODD).config
    for number, (videos, messages) in enumerate(cases.CHATS):
        plain = [
            {**m, "content": m["content"][0]["text"]} if len(m["content"]) == 1 else m
            for m in messages
        ]
        for given in (messages, plain):
            row = encode_row(tokenizer, config, SMALL, [video(cases.VIDEO)] * videos, given)
            np.testing.assert_array_equal(row.ids, expected[f"ids_{number}"])
            assert len(row.media) == videos
