"""The mistakes of a first hour: each gets the answer that docs/benchmarks.md quotes."""

import pytest

from benchmarks._first_mistakes import MISTAKES, answer, make_inputs


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """The mistakes whose inputs can be made here."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with make_inputs() as mistakes:
            yield mistakes


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_gets_its_answer(inputs, mistake):
    if mistake not in inputs:
        pytest.skip("mounting a disk needs root")
    code, lines = answer(mistake.words)
    assert code == mistake.exit_code
    assert any(mistake.answer in line for line in lines), lines
    assert not any("Traceback" in line for line in lines)
