"""The summary of an evaluation as markdown tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hippo_jax.benchmark.measure import where


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The summary as tables."""
    manifest = summary["manifest"]
    lines = [
        f"# {manifest['benchmark']}",
        "",
        f"{manifest['pair']['name']}, {_said(manifest)}; {where(manifest['machine'])}. "
        f"{summary['samples']} samples, {len(summary['errors'])} of them errors.",
    ]
    if summary["speed"] is not None:
        lines += ["", *_speed_table(summary["speed"], manifest)]
    if summary["quality"] is not None:
        lines += ["", *_quality_table(summary["quality"])]
    if summary["check"] is not None:
        lines += ["", _check_line(summary["check"])]
    if summary["errors"]:
        lines += ["", "| sample | error |", "|---|---|"]
        lines += [f"| {_cell(one['id'])} | {_cell(one['error'])} |" for one in summary["errors"]]
    return "\n".join(lines) + "\n"


def _said(manifest: Mapping[str, Any]) -> str:
    settings = manifest["settings"]
    return (
        f"schedule {settings['config']['schedule']}, gamma {settings['config']['gamma']}, keep "
        f"ratio {settings['config']['keep_ratio']:g}, at most {settings['max_new_tokens']} new "
        f"tokens, greedy, {manifest['pair']['dtype']}; {_where(settings)} "
        f"of {_count(settings['batch'], 'row')}"
    )


def _where(settings: Mapping[str, Any]) -> str:
    devices = settings.get("devices")  # older evaluations do not say
    if devices is None:
        return _count(settings["replicas"], "replica")
    if len(devices) == 1:
        return f"one pair over {_count(devices[0], 'device')}, calls"
    apart = f"target over {_count(devices[0], 'device')}, draft over {devices[1]} more"
    return f"{apart}, calls"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _speed_table(speed: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    schedule = manifest["settings"]["config"]["schedule"]
    head = [
        "samples",
        f"MAT ({schedule} runs)",
        "with correction",
        "tokens/round",
        "acceptance",
        "tokens/s",
    ]
    cells = [
        str(speed["samples"]),
        _digits(speed["mat"]),
        _digits(speed["mat_with_correction"]),
        _digits(speed["tokens_per_round"]),
        _percent(speed["acceptance_rate"]),
        f"{speed['tokens_per_second']:.1f}",
    ]
    if "speedup" in speed:
        head += ["plain, tokens/s", "speedup (95 % interval)"]
        cells += [f"{speed['plain_tokens_per_second']:.1f}", _interval(speed)]
    return [
        f"Speed, on captions ({speed['tokens']} tokens; {speed['kept_visual_tokens']:.0f} of "
        f"{speed['visual_tokens']:.0f} visual tokens kept; times with prefill, without reading "
        "videos and compiling):",
        "",
        f"| {' | '.join(head)} |",
        "|" + "---|" * len(head),
        f"| {' | '.join(cells)} |",
    ]


def _interval(speed: Mapping[str, Any]) -> str:
    interval = speed["speedup_interval"]
    known = "" if interval is None else f" ({interval[0]:.2f} to {interval[1]:.2f})"
    return f"{speed['speedup']:.2f}{known}"


def _quality_table(quality: Mapping[str, Any]) -> list[str]:
    lines = [
        "Quality, on multiple-choice questions:",
        "",
        "| task | questions | counted | no letter read | right | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for task, one in [*quality["tasks"].items(), ("**all**", quality["all"])]:
        numbers = [one[name] for name in ("questions", "counted", "no_letter", "right")]
        cells = [_cell(task), *map(str, numbers), _percent(one["accuracy"])]
        lines.append(f"| {' | '.join(cells)} |")
    if quality["mean_of_tasks"] is not None:
        lines += ["", f"Mean of the tasks' accuracies: {_percent(quality['mean_of_tasks'])}."]
    return lines


def _check_line(check: Mapping[str, Any]) -> str:
    said = f"Same tokens as plain decoding: {check['equal']} of {check['compared']} answers."
    first = check["first"]
    if first is None:
        return said
    return (
        f"{said} The first that differs: {first['id']}, from token {first['place'] + 1} on "
        f"(plain {first['plain_token']}, HIPPO {first['token']})."
    )


def _digits(figure: float | None) -> str:
    return "?" if figure is None else f"{figure:.2f}"


def _percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.1f} %"


def _cell(text: str) -> str:
    """Text that cannot break a table."""
    return " ".join(text.replace("|", "\\|").split())
