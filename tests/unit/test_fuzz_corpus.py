"""Every input of tests/fuzz/corpus keeps what its target states; `python -m tests.fuzz` looks for more of them."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_of_the_corpus_breaks_its_target(target: str) -> None:
    """Inputs that once mattered, and those that reach most of the code, are read as the target promises."""
    inputs = sorted(CORPUS.joinpath(target).iterdir())
    assert len(inputs) >= 10
    for file in inputs:
        try:
            TARGETS[target](file.read_bytes())
        except Exception as error:
            raise AssertionError(f"{target} breaks with {file.name}") from error
