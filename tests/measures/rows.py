"""What several tests of measures do with rows of results."""

from __future__ import annotations


def by_metric(rows: list[dict]) -> dict[str, dict]:
    return {row["metric"]: row for row in rows}
