"""Export reports: what each tried precision lost, and which one was chosen."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class MetricChange:
    """One metric of a task, before and after the export.

    Attributes:
        name: such as "ndcg@10".
        original: mean over the task's queries or lists, torch model.
        exported: the same of the exported model.
        loss: (original - exported) / original; negative is a gain.
        low: lower end of the loss's 95 % interval (paired bootstrap).
        high: upper end of it.
    """

    name: str
    original: float
    exported: float
    loss: float
    low: float
    high: float


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PrecisionReport:
    """One tried precision.

    Attributes:
        precision: fp32, fp16 or int8.
        passed: every metric's loss is within the tolerance, and every output is a number.
        changes: of the task's own metrics; these decide.
        agreement: how alike the two models' answers are, by name; these are for the reader.
        bytes: size of the graph's file.
        size: the same as a share of the fp32 graph's file.
    """

    precision: str
    passed: bool
    changes: tuple[MetricChange, ...]
    agreement: dict[str, float]
    bytes: int
    size: float

    def __str__(self) -> str:
        changes = "  ".join(
            f"{change.name} {change.original:.4f} → {change.exported:.4f} "
            f"(loss {change.loss:+.2%}, 95 % {change.low:+.2%} … {change.high:+.2%})"
            for change in self.changes
        )
        agreement = "  ".join(f"{name} {value:.4f}" for name, value in self.agreement.items())
        verdict = "passed " if self.passed else "refused"
        size = f"{self.bytes / 1e6:.1f} MB ({self.size:.0%} of fp32)"
        return f"{self.precision:5} {verdict}  {changes}  {agreement}  {size}"


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ExportReport:
    """What an export tried and chose; `str()` gives one line per precision."""

    chosen: str
    tolerance: float
    tried: tuple[PrecisionReport, ...]

    def __str__(self) -> str:
        lines = [f"chosen: {self.chosen} (tolerance {self.tolerance:.1%})"]
        return "\n".join([*lines, *(str(row) for row in self.tried)])
