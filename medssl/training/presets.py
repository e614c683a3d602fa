"""Presets: what a schedule by name, or few labels, stand for in a finetuning's settings."""

from typing import Any, Literal

from medssl.settings import Settings

Schedule = Literal["full", "scratch", "warm-up", "sawtooth", "layer-wise", "gentle", "frozen", "lora"]

PLANS: dict[str, dict[str, Any]] = {
    "warm-up": {"warmup": 0.2},
    "sawtooth": {"schedule": "sawtooth", "freeze": 0.2, "warmup": 0.2},
    "layer-wise": {"layer_decay": 0.65},
    "gentle": {"heads_lr": 5.0, "finest_lr": 0.5, "coarser_lr": 0.05},
    "frozen": {"freeze": 1.0},
}
# Up to so many labelled volumes: the fewer there are, the more often each is seen, and the more it is varied.
FEW: dict[int, dict[str, dict[str, Any]]] = {
    4: {"augment": {"share": 0.5, "elastic": 0.15, "rotate_deg": 20.0, "scale": 0.2}, "plan": {"weight_decay": 0.1}},
    16: {"augment": {"share": 0.4}, "plan": {"weight_decay": 0.07}},
}


def filled(values: dict[str, Any]) -> dict[str, Any]:
    """The values with what their `schedule`, and `regularise` for so many `labels`, stand for; what is given stands."""
    few = _few(values.get("labels")) if values.get("regularise") else {}
    presets = {
        "augment": few.get("augment", {}),
        "plan": PLANS.get(values.get("schedule", ""), {}) | few.get("plan", {}),
    }
    return values | {group: preset | _given(values.get(group, {})) for group, preset in presets.items() if preset}


def _few(labels: Any) -> dict[str, dict[str, Any]]:
    return next((FEW[most] for most in sorted(FEW) if isinstance(labels, int) and labels <= most), {})


def _given(group: Any) -> dict[str, Any]:
    return group.model_dump(exclude_unset=True) if isinstance(group, Settings) else dict(group)
