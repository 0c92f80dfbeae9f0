"""Tables that programs write into pages."""
import pytest

from experiments import growth, pages, paper


def test_tables_are_written_where_they_belong(tmp_path):
    path, mark = tmp_path / "a.md", pages.start(paper.PROGRAM)
    path.write_text("\n".join(["é", pages.start(growth.PROGRAM), "its", pages.END, mark, "old",
                               pages.END, "after"]), encoding="utf-8")
    for table in ("| 1 |", "| 2 |"):
        pages.write_tables(str(path), paper.PROGRAM, table)
    assert path.read_text(encoding="utf-8").splitlines() == [
        "é", pages.start(growth.PROGRAM), "its", pages.END, mark, "", "| 2 |", "", pages.END,
        "after"]


@pytest.mark.parametrize("text", ["", pages.END, pages.start(paper.PROGRAM)])
def test_a_page_without_a_place_is_left_alone(tmp_path, text):
    path = tmp_path / "a.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="a.md: no place for the tables"):
        pages.write_tables(str(path), paper.PROGRAM, "| 1 |")
    assert path.read_text() == text
