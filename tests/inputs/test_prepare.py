"""Videos and prompts to one batch: rows, tables, refusals. On the embedded pair's processor."""

import numpy as np
import pytest

import hippo_jax as hj
from hippo_jax import resources


@pytest.fixture(scope="module")
def model() -> hj.VideoLM:
    return hj.load_model(resources.checkpoint_directory("demo", "draft"))


def video(frames: int, height: int = 252, width: int = 252, seed: int = 0) -> hj.Video:
    rng = np.random.default_rng(seed)
    return hj.Video(rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8), 4.0)


def rows_of(inputs: hj.ModelInputs) -> list[np.ndarray]:
    return [ids[:n] for ids, n in zip(inputs.token_ids, inputs.lengths, strict=True)]


def test_a_batch_is_its_rows(model) -> None:
    """A list of rows gives each row what it gets alone: ids, positions, pixels."""
    videos, prompts = [video(8), video(4, seed=1), None], ["One?", "Two, in more words?", "Three?"]
    batch = hj.prepare_inputs(model, videos, prompts)
    start = 0
    for b, (item, prompt) in enumerate(zip(videos, prompts, strict=True)):
        alone = hj.prepare_inputs(model, item, prompt)
        n = int(alone.lengths[0])
        np.testing.assert_array_equal(rows_of(batch)[b], rows_of(alone)[0])
        np.testing.assert_array_equal(batch.positions[:, b, :n], alone.positions[:, 0, :n])
        assert batch.next_position[b] == alone.next_position[0]
        visual = int(alone.visual_tokens[0])
        assert batch.visual_tokens[b] == visual
        if visual:
            stop = start + 4 * visual
            np.testing.assert_array_equal(
                batch.vision.pixels[start:stop], alone.vision.pixels[: 4 * visual]
            )
            start = stop
    assert not batch.vision.pixels[start:].any()


def test_one_video_serves_many_prompts_and_one_prompt_many_videos(model) -> None:
    asked = hj.prepare_inputs(model, video(4), ["One?", "Two?"])
    assert asked.batch == 2 and asked.visual_tokens.tolist() == [162, 162]
    shown = hj.prepare_inputs(model, [video(4), video(8)], "What?")
    assert shown.batch == 2 and shown.visual_tokens.tolist() == [162, 324]


def test_the_table_says_where_every_visual_token_comes_from(model) -> None:
    """Two videos and an image in one row, one video in the next, against a slow loop."""
    image = video(1).frames[0]
    inputs = hj.prepare_inputs(
        model, [[video(4), image, video(2, 140, 252)], [video(2)]], ["Many?", "One?"]
    )
    config = model.config
    sizes = [[(0, 2, 9, 9), (-1, 1, 9, 9), (1, 1, None, None)], [(0, 1, 9, 9)]]
    expected = []
    for row, media in enumerate(sizes):
        ids = rows_of(inputs)[row]
        slots = iter(np.flatnonzero(np.isin(ids, (config.video_token_id, config.image_token_id))))
        for number, t, h, w in media:
            if h is None:  # a smaller frame: its grid follows from what is left
                left = int(inputs.visual_tokens[row]) - len(expected)
                grids = [(h, left // h) for h in range(1, left) if left % h == 0]
                h, w = min(grids, key=lambda g: abs(g[1] / g[0] - 252 / 140))
            for frame in range(t):
                for y in range(h):
                    for x in range(w):
                        expected.append((row, next(slots), number, frame, y, x))
        assert next(slots, None) is None
    table = inputs.table
    found = np.stack([table.row, table.slot, table.video, table.frame, table.y, table.x], axis=1)
    assert table.valid.sum() == len(expected) and table.valid[: len(expected)].all()
    np.testing.assert_array_equal(found[: len(expected)], expected)
    # What stands at a slot is the very visual token of that line.
    lines = np.arange(len(expected))
    np.testing.assert_array_equal(inputs.visual_index[found[lines, 0], found[lines, 1]], lines)
    assert (inputs.visual_index >= 0).sum() == len(expected)


def test_messages_place_videos_where_they_stand(model) -> None:
    parts = [{"type": "text", "text": "Before."}, {"type": "video"}]
    inputs = hj.prepare_inputs(model, video(4), [{"role": "user", "content": parts}])
    ids = rows_of(inputs)[0]
    first = int(np.flatnonzero(ids == model.config.video_token_id)[0])
    assert "Before." in model.tokenizer.decode(ids[:first])


@pytest.mark.parametrize(
    ("videos", "prompts", "said"),
    [
        ([], "x", "no rows"),
        ([None, None], ["a", "b", "c"], "2 rows of videos but 3 prompts"),
        (None, 3, "prompt"),
        (None, [], "no rows"),
        (np.zeros((4, 8, 8, 3), np.float32), "x", "uint8"),
        (video(4), [{"role": "user", "content": "no place for it"}], "no video"),
    ],
)
def test_what_does_not_fit_is_one_line(model, videos, prompts, said: str) -> None:
    with pytest.raises(hj.HippoError, match=said) as caught:
        hj.prepare_inputs(model, videos, prompts)
    assert "\n" not in str(caught.value)
