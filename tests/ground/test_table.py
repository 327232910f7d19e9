"""Tables as text for a terminal and as Markdown."""

from vertebra.ground import formats
from vertebra.ground.table import Cell, Row, Table

TABLE = Table(
    "Two",
    ["A", "B less A"],
    [
        Row("AP", ["61.20", Cell(formats.signed_points(-0.5), "not distinguishable", best=True)]),
        Row("missed", ["2.00", formats.NONE], note="not found", group="Lost"),
        Row("both|", ["1.00", "x"], group="Lost"),
        Row(f"r18 {formats.TIMES}2", ["1.00", "2"], group="Lost"),
    ],
    corner="Error",
    note="Of 50 images.",
)


def test_text_is_aligned_under_its_groups_in_marks_that_every_terminal_has():
    assert TABLE.text().splitlines() == [
        "Two",
        "Error                   A                     B less A",
        "AP                  61.20  -0.50 (not distinguishable)",
        "Lost",
        "missed (not found)   2.00                            -",
        "both|                1.00                            x",
        f"r18 {formats.TIMES}2               1.00                            2",
        "Of 50 images.",
    ]


def test_markdown_has_the_same_cells_with_bars_escaped_and_the_best_bold():
    assert TABLE.markdown().splitlines() == [
        "| Error | A | B less A |",
        "|---|---:|---:|",
        f"| AP | 61.20 | **{formats.MINUS}0.50 (not distinguishable)** |",
        f"| missed (not found) | 2.00 | {formats.NONE} |",
        "| both\\| | 1.00 | x |",
        f"| r18 {formats.TIMES}2 | 1.00 | 2 |",
    ]


def test_counts_and_their_changes_have_thousands_apart():
    assert [formats.tally(1204.4), formats.signed_tally(1204), formats.signed_tally(-0.3)] == ["1,204", "+1,204", "0"]


def test_what_is_written_as_nought_has_no_sign():
    for value in (0.0, -0.0, 0.004, -0.004):
        assert {formats.points(value), formats.signed_points(value)} == {"0.00"}
        assert {formats.ap(value), formats.signed(value)} == {"0.0"}
    assert [formats.signed(6), formats.signed_points(-0.314)] == ["+6.0", f"{formats.MINUS}0.31"]
