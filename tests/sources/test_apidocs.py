import textwrap
from collections import Counter

import pytest

from rag_core.base.errors import DataError
from rag_core.sources import apidocs
from rag_core.sources.mining import Mining


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the way of numpy; `rest` is long enough for a passage."""
    rest = (
        "It takes the {0} apart, looks at every {0} by itself, and gives back what it found for the {0} in order, " * 2
    )
    functions = {
        "fft": ("Compute the one-dimensional transform of a signal.", rest.format("wave")),
        "sort": ("Put the rows of a table in order.", rest.format("row")),
        "signature": ("where(condition, x, y) of a thing", rest.format("choice")),
        "essay": ("word " * 60, rest.format("essay")),
        "short": ("Two words", rest.format("brief")),
        "trivial": ("Give the mean of a table.", "Give the mean of a table. " + rest.format("mean")),
        "_private": ("Do what nobody needs to know.", rest.format("secret")),
    }
    source = "".join(
        f'def {name}():\n    """{query}\n\n    {text}\n    """\n' for name, (query, text) in functions.items()
    )
    (tmp_path / "docs_a").mkdir()
    (tmp_path / "docs_a/__init__.py").write_text(source)
    (tmp_path / "docs_a/_inductor.py").write_text(source.replace("of", "by"))
    (tmp_path / "docs_a/test_it.py").write_text(source.replace("of", "by"))
    twin = f'''
        def fft():
            """Find the frequencies in a discrete series.

            {rest.format("series of samples")}
            """
        def near():
            """Sort in another way altogether, quickly.

            Beware. {rest.format("row")}
            """
        class Other:
            """Say what else a transform of a signal is good for.

            {"A transform of a signal has many uses that nobody listed. " * 4}
            """
    '''
    (tmp_path / "docs_b").mkdir()
    (tmp_path / "docs_b/__init__.py").write_text(textwrap.dedent(twin))
    monkeypatch.syspath_prepend(tmp_path)
    return ("docs_a", "docs_b")


def test_apidocs_takes_sentences_and_their_docs(package):
    samples = {one.query_id: one for one in apidocs.read_samples(package, Mining(3), Counter())}
    assert list(samples) == ["docs_a.fft", "docs_a.sort", "docs_b.fft", "docs_b.near", "docs_b.Other"]
    assert samples["docs_a.sort"].query == "Put the rows of a table in order."
    assert samples["docs_a.sort"].positive[0].startswith("It takes the row apart")


def test_apidocs_negatives_are_no_twins_of_the_positive(package):
    samples = {one.query_id: one for one in apidocs.read_samples(package, Mining(5), Counter())}
    passages = {name: one.positive[0] for name, one in samples.items()}
    assert passages["docs_b.fft"] not in samples["docs_a.fft"].negative  # the same name
    assert passages["docs_b.near"] not in samples["docs_a.sort"].negative  # nearly the same text
    assert set(samples["docs_b.Other"].negative) == set(passages.values()) - {passages["docs_b.Other"]}
    assert all(one.positive[0] not in one.negative for one in samples.values())


def test_apidocs_of_a_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError) as error:
        apidocs.read_samples(("sklearn",), Mining(3), Counter())
    assert str(error.value) == "the package sklearn is not installed. pip install scikit-learn."
