"""What commands that make one table say of their input: in their own words, not in those of a pipeline's YAML."""

import pytest

FILES = {"in/1.csv": "id,label,x\n1,a,1\n2,b,2\n", "in/2.csv": "id,label\n3,a\n", "one.csv": "id,label,x\n1,a,1\n"}
COMMANDS = {
    "impute": ("in",),
    "dedup": ("in", "--exact", "x", "--key", "id"),
    "rebalance": ("in", "--by", "label", "--target", "equal"),
    "fuse": ("in", "one.csv", "--key", "id"),
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "in").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_that_is_refused_is_told_without_options_of_a_source(in_session, files, name):
    code, _, error = in_session(name)(*COMMANDS[name], "--into", "t")
    assert code == 4 and "2.csv: its columns do not match" in error and "missing 'x'" in error, error
    assert "; all files of an input have the columns of its first" in error and "source." not in error


def test_a_file_that_changed_is_told_without_options_of_a_source(in_session, files, tmp_path):
    dedup = in_session("dedup")
    (tmp_path / "in/2.csv").unlink()
    assert dedup(*COMMANDS["dedup"], "--into", "t")[0] == 0
    (tmp_path / "in/1.csv").write_text(FILES["in/1.csv"] + "3,a,1\n")
    code, _, error = dedup(*COMMANDS["dedup"], "--into", "t")
    assert code == 4 and error.strip().endswith("bytes then, 29 now); put it back as it was"), error


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "fuse"])  # which mends the names
def test_mistakes_in_columns_are_told_once_and_as_written(in_session, files, tmp_path, name):
    for folder in ("in/1.csv", "in/2.csv"):
        (tmp_path / folder).write_text("id,label,x,a b\n1,a,1,2\n")
    code, _, error = in_session(name)(*COMMANDS[name], "--into", "t")
    assert code == 2 and error.count("cannot be published") == 1 and "Rename it in the file" in error, error
    (tmp_path / "in/2.csv").unlink()
    (tmp_path / "in/1.csv").write_text(FILES["in/1.csv"])
    code, _, error = in_session(name)(*COMMANDS[name], "--into", "t", "--where", "x >")
    assert code == 2 and "--where: 'x >' cannot be read" in error, error
