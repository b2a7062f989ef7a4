"""The public functions: their documented examples run on the creature, `import franken` loads
nothing, and packages that are functions too stay packages.
"""

import doctest
import subprocess
import sys

import pytest

import franken


@pytest.mark.parametrize("name", franken.FACE)
def test_the_documented_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = franken._function(name)
    (example,) = doctest.DocTestFinder(recurse=False).find(
        function, name, globs={"franken": franken}
    )
    assert example.examples, f"franken.{name} has no example"
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def test_importing_franken_imports_nothing_else():
    code = (
        "import sys; before = set(sys.modules); import franken;"
        "more = {m for m in set(sys.modules) - before if m.partition('.')[0] in "
        "('franken', 'trainer', 'numpy', 'pydantic', 'torch', 'pandas')};"
        "assert more == {'franken'}, more;"
        "assert callable(franken.diff) and franken.diff is sys.modules['franken.diff'];"
        "assert 'torch' not in sys.modules and 'trainer' not in sys.modules;"
        "import franken.merge.plan; assert callable(franken.merge);"
        "from franken import evaluate, stats; assert evaluate.__name__ == 'franken.evaluate'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_what_franken_does_not_have_is_said():
    with pytest.raises(AttributeError, match="no attribute 'dif'"):
        getattr(franken, "dif")  # noqa: B009
    assert set(franken.FACE) <= set(dir(franken))
