from pathlib import Path

import pytest

from glint.core.errors import GlintError
from glint.core.names import check_name


@pytest.mark.parametrize("name", ["line-4", "3fa4bc0d1e2f5a6b", "a", "2026.03_night", "x" * 100])
def test_a_name_of_a_folder_is_taken(name: str, tmp_path: Path) -> None:
    check_name("--job", name)
    (tmp_path / name).mkdir()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../evil", "a/b", "a\\b", ".hidden", "-x", "a b", "line\n4", "x" * 101, "é"]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(GlintError, match=r"--job .* must be at most 100 letters"):
        check_name("--job", name)
