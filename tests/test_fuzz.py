"""Good files with words and bytes replaced: every reader gives a value or one sentence, and keeps to its memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.readers import ODD, READERS, mutated
from vertebra.ground.errors import UserError

EDIT = st.tuples(st.integers(0, 5000), st.integers(0, 9), st.sampled_from(ODD) | st.binary(max_size=4))
EDITS = st.lists(EDIT, max_size=3)


@pytest.mark.parametrize("name", READERS)
def test_whatever_a_file_holds_it_is_a_value_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, name: str):
    reader = READERS[name]
    path, good = reader.prepare(tmp_path_factory.mktemp("fuzz"))
    path.write_bytes(good)
    reader.read(path)  # as it stands, it is read

    @settings(max_examples=60, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(EDITS, EDITS)
    def attempt(words: list[tuple[int, int, bytes]], edits: list[tuple[int, int, bytes]]) -> None:
        path.write_bytes(mutated(good, words, edits))
        try:
            reader.read(path)
        except UserError as error:
            assert str(error)

    attempt()


def test_the_places_of_a_reader_are_files(tmp_path: Path):
    for number, reader in enumerate(READERS.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        path, good = reader.prepare(folder)
        assert path.is_relative_to(folder) and good
