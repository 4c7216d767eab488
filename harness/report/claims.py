"""The papers' claims as a table of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.engine.ledger import Ledger
from harness.report.gather import Section


def claim_table(sections: Sequence[Section], ledger: Ledger) -> dict[str, Any] | None:
    return None
