"""Text in columns of equal width."""

from collections.abc import Collection, Sequence


def align(lines: Sequence[Sequence[str] | None], left: Collection[int] = (0,)) -> str:
    """Columns of equal width; None is a rule.

    Args:
      lines: cells of each line, as many in one as in the others.
      left: numbers of the columns that stand to the left, as texts do; the others, as numbers do,
        to the right.
    """
    cells = [line for line in lines if line is not None]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))

    def text(line: Sequence[str]) -> str:
        columns = [
            cell.ljust(width) if number in left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(columns).rstrip()

    return "\n".join(rule if line is None else text(line) for line in lines)
