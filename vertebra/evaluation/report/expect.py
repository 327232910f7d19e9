"""Published numbers beside those found here: a file says what to expect, and each is met, missed or not here.

The file is YAML or JSON: a list, or a mapping with the list as `expectations` and a `source` for all that have none.

- side: r101            # its label, or the backbone's name; head: fpn (optional, the protocol's model.body)
  figure: AP            # a figure of the main table, or a cost
  value: 27.2
  tolerance: 0.5
  source: He et al. 2015, table 8
- side: r50              # a class's: AP, AP50 or, of segmenters, IoU
  class: cat
  figure: IoU
  value: 91.0
  tolerance: 2
- difference: [r101, vgg16]   # the first less the second
  figure: AP
  value: 6.0
  tolerance: 0.8
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from vertebra.evaluation.report.content import Comparison, Content, Outcome, SideFacts
from vertebra.evaluation.report.costs import COSTS
from vertebra.evaluation.report.reading import read_text
from vertebra.evaluation.report.spread import Spread, with_unit
from vertebra.evaluation.report.task import DETECTION, SEGMENTATION
from vertebra.evaluation.statistics.comparison import Difference
from vertebra.ground import formats
from vertebra.ground.errors import UserError
from vertebra.ground.parse import parse_yaml

OF_CLASSES = (*DETECTION.of_class, *SEGMENTATION.of_class)
FIGURES = tuple(dict.fromkeys((*DETECTION.notes, *SEGMENTATION.notes, *OF_CLASSES)))
MET, MISSED, NOT_HERE = "met", "missed", "not here"


def _known_figure(name: object) -> str:
    if name in (*FIGURES, *COSTS):
        return str(name)
    raise ValueError(formats.did_you_mean(str(name), (*FIGURES, *COSTS), "choose from"))


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("it should be a number")
    return value


Number = Annotated[FiniteFloat, BeforeValidator(_no_truth_value)]


class Expectation(BaseModel):
    """value ± tolerance of a figure or cost of one side, or of the first of two sides less the second; of one class."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    side: str | None = Field(None, min_length=1)
    difference: tuple[str, str] | None = None
    figure: Annotated[str, BeforeValidator(_known_figure)]
    value: Number
    tolerance: Annotated[Number, Field(ge=0)]
    source: str | None = None
    head: str | None = None
    of_class: str | None = Field(None, alias="class")

    @model_validator(mode="after")
    def _side_or_difference(self) -> Expectation:
        if (self.side is None) == (self.difference is None):
            raise ValueError("give either side: NAME or difference: [NAME, NAME]")
        if self.of_class is not None and self.figure not in OF_CLASSES:
            raise ValueError(f"class: {self.of_class} has no {self.figure}, but {formats.joined(OF_CLASSES)}")
        if self.figure == "IoU" and self.of_class is None:
            raise ValueError("figure: IoU is of one class: name it as class: NAME, or give figure: mIoU")
        return self

    @property
    def sides(self) -> tuple[str, ...]:
        return self.difference or (str(self.side),)

    @property
    def what(self) -> str:
        return f" {formats.MINUS} ".join(self.sides)


class ExpectationFile(BaseModel):
    """source: of every expectation that names none."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    expectations: list[Expectation] = Field(min_length=1)
    source: str | None = None


def read_expectations(path: Path) -> list[Expectation]:
    """Read the file's expectations; UserError names the file, the entry and what is wrong with it."""
    text = read_text(path, "give a YAML or JSON file of published numbers")
    try:
        content = parse_yaml(text)  # JSON is YAML
    except ValueError as error:
        raise UserError(path, f"it is not valid YAML ({error})") from None
    try:
        file = ExpectationFile.model_validate({"expectations": content} if isinstance(content, list) else content)
    except ValidationError as error:
        raise UserError(path, _sentence(error)) from None
    return [one if one.source else one.model_copy(update={"source": file.source}) for one in file.expectations]


def _sentence(error: ValidationError) -> str:
    """Describe the first error: which entry, what was found, and what should be there."""
    first = error.errors()[0]
    problem = first["msg"].removeprefix("Value error, ").replace("Input", "it", 1)
    if first["type"] == "model_type":
        problem = f"{first['input']!r} should be a mapping"
    place = first["loc"]
    if len(place) < 2:
        field = f"{place[0]}: " if place else ""
        return (
            "it should be a list of expectations (each with side or difference, figure, value and tolerance), or a "
            f"mapping of expectations and source; {field}{problem}"
        )
    field = ".".join(str(part + 1 if isinstance(part, int) else part) for part in place[2:])
    if first["type"] == "extra_forbidden":
        known = [one.alias or name for name, one in Expectation.model_fields.items()]
        problem = f"there is no field {field}; {formats.did_you_mean(field, known, 'choose from')}"
    elif first["type"] == "missing":
        problem = f"{field} is missing"
    elif field:
        problem = f"{field} is {first['input']!r}; {problem}"
    return f"expectation {int(place[1]) + 1}: {problem}"


def compare(expectations: Sequence[Expectation], content: Content, heads: Sequence[str | None]) -> list[Outcome]:
    """Compare each expectation of this head with the figure here; those of none of the `heads` are not here."""
    head, elsewhere = content.head, of_other_heads(expectations, heads)
    return [
        _outcome(one, content, is_elsewhere=one in elsewhere)
        for one in expectations
        if one in elsewhere or one.head is None or head is None or one.head == head
    ]


def of_other_heads(expectations: Sequence[Expectation], heads: Sequence[str | None]) -> list[Expectation]:
    """Return those of a head that no comparison has; none where a head is not known."""
    return [] if None in heads else [one for one in expectations if one.head not in (None, *heads)]


def other_heads_notes(expectations: Sequence[Expectation], heads: Sequence[str | None]) -> list[str]:
    """Return a sentence for each head that no comparison has and expectations are of."""
    counts = Counter(str(one.head) for one in of_other_heads(expectations, heads))
    here = f"{'heads' if len(heads) > 1 else 'head'} {formats.joined([str(head) for head in heads])}"
    return [
        f"{count} {'expectation is' if count == 1 else 'expectations are'} for head {head}, which no run here has "
        f"({here}), so nothing was compared with {'it' if count == 1 else 'them'}"
        for head, count in counts.items()
    ]


def missed(outcomes: Sequence[Outcome], head: str | None) -> list[str]:
    """Return a sentence for each expectation that is missed."""
    at = f" ({head})" if head else ""
    return [
        f"{one.what}{at}: {one.figure} is {one.ours_text}, expected {one.theirs_text}"
        + (f" ({one.source})" if one.source else "")
        for one in outcomes
        if one.outcome == MISSED
    ]


def _outcome(one: Expectation, content: Content, *, is_elsewhere: bool) -> Outcome:
    sides = [None if is_elsewhere else _side(name, content.sides) for name in one.sides]
    spreads = [_spread(side, one, content) for side in sides if side is not None]
    values = [figure.mean for figure in spreads if figure is not None and figure.mean is not None]
    found = None if len(values) < len(one.sides) else values[0] - sum(values[1:])
    outcome = NOT_HERE if found is None else MET if abs(found - one.value) <= one.tolerance + 1e-9 else MISSED
    return Outcome(
        what=f"{one.what} ({one.head})" if is_elsewhere else one.what,
        figure=", ".join(filter(None, (one.figure, one.of_class))),
        ours=found,
        ours_text=formats.NONE if found is None else _found_text(one, sides, content, found),
        theirs=one.value,
        tolerance=one.tolerance,
        theirs_text=f"{_write(one, one.value)} ± {_writer(one.figure)(one.tolerance)}",
        outcome=outcome,
        source=one.source,
    )


def _side(name: str, sides: Sequence[SideFacts]) -> SideFacts | None:
    """Return the side of that label, else the one on that backbone; UserError where several are."""
    for side in sides:
        if side.label == name:
            return side
    on_backbone = [side for side in sides if side.backbone.get("name") == name]
    if len(on_backbone) > 1:
        listed = ", ".join(side.label for side in on_backbone)
        raise UserError(
            f"expectation of {name}", f"{len(on_backbone)} sides have this backbone", f"name one of {listed}"
        )
    return on_backbone[0] if on_backbone else None


def _spread(side: SideFacts, one: Expectation, content: Content) -> Spread | None:
    """Return the figure, of the class where one is asked for, or the cost; None where this report has none."""
    if one.of_class is not None:
        place = content.labels.index(side.label)
        rows = [row.figures.get(one.figure) for row in content.per_class if row.name == one.of_class]
        return rows[0][place] if rows and rows[0] else None
    return side.figures.get(one.figure) if one.figure in FIGURES else side.cost.measures[one.figure]


def _found_text(one: Expectation, sides: Sequence[SideFacts | None], content: Content, found: float) -> str:
    """Write the figure with its standard deviation over seeds, or the difference with its interval."""
    if len(sides) == 1 and sides[0] is not None:
        return with_unit(_spread(sides[0], one, content), _writer(one.figure))
    labels = [side.label for side in sides if side is not None]
    for pair in (*content.differences_to_baseline, *content.best_against_others):
        difference = _difference(one, pair, content)
        if difference and [pair.b, pair.a] == labels:
            return difference.text()
        if difference and [pair.a, pair.b] == labels:
            low, high = -difference.high, -difference.low
            return replace(difference, estimate=-difference.estimate, low=low, high=high).text()
    return _write(one, found)


def _difference(one: Expectation, pair: Comparison, content: Content) -> Difference | None:
    """Return the pair's, with its interval; of a class there is one in the first of its figures alone."""
    if one.of_class is None:
        return pair.differences.get(one.figure)
    return pair.per_class.get(one.of_class) if one.figure == next(iter(content.task.of_class)) else None


def _write(one: Expectation, value: float) -> str:
    """Write the value, with its sign where it is a difference."""
    if len(one.sides) == 1:
        return _writer(one.figure)(value)
    return formats.signed(value) if one.figure in FIGURES else formats.signed_by(_writer(one.figure), value)


def _writer(figure: str) -> Callable[[float | None], str]:
    return formats.ap if figure in FIGURES else COSTS[figure].write
