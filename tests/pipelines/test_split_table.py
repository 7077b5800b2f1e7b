"""Split table: a CSV decides, and whatever in it is not clear is named with its line."""

import pytest

from pipelines.errors import InputError
from pipelines.sample import Item
from pipelines.splits import assign, read_table

# What a YAML file says that says nothing.
DEFAULTS = {"by": "csv", "train": 0.7, "validation": 0.15, "test": 0.15}
TABLE = {"cell0": "train", "cell1": "validation", "cell2": "test", "cell3": "", "cell4": "none"}


def load():
    raise AssertionError("a split needs no pixels")


def single(count):
    return [Item(name=f"cell{i}", load=load) for i in range(count)]


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "splits.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_read_and_assign(tmp_path):
    # A spreadsheet's byte order mark and line ends, a column more, blanks, a comma in a name, an empty line.
    path = written(
        tmp_path,
        'split,who,name\r\ntrain,x, a/t00 \r\n validation ,,"b, c"\r\n\r\ntest,,d\r\n,,e\r\nnone,,f\r\n,,\r\n',
        "utf-8-sig",
    )
    assert read_table(path) == {"a/t00": "train", "b, c": "validation", "d": "test", "e": "", "f": ""}


def test_the_table_decides():
    result = assign(single(5), **DEFAULTS, table=TABLE)
    assert list(result.items()) == list(zip(TABLE, ["train", "validation", "test", None, None], strict=True))


def test_no_test_split_is_needed_where_none_is_wanted():
    table = TABLE | {"cell2": "train"}
    assert assign(single(5), **(DEFAULTS | {"test": None}), table=table)["cell2"] == "train"
    # If the table has one all the same, it is kept.
    assert assign(single(5), **(DEFAULTS | {"test": None}), table=TABLE)["cell2"] == "test"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"splits\.csv: the header needs one column 'name', and has 0\. The first line is empty"),
        ("file,split\na,train\n", r"needs one column 'name', and has 0\. There are: file, split\."),
        ("name,splits\na,train\n", r"column 'split', and has 0\. There are: name, splits\. Did you mean 'splits'\?"),
        ("name,name,split\na,b,train\n", r"needs one column 'name', and has 2"),
        ("name;split\na;train\n", r"Separate columns by commas, not by ;"),
        ("name\tsplit\na\ttrain\n", r"Separate columns by commas, not by tabs"),
        ("name,split\n", r"splits\.csv lists no image"),
        ("name,split\na,train\nb,val\n", r"line 3: 'val' is no split\. Did you mean 'validation'\? Known: train, vali"),
        ("name,split\n\na,Train\n", r"line 3: 'Train' is no split\. Did you mean 'train'\?"),
        ("name,split\na,tets\n", r"line 2: 'tets' is no split\. Did you mean 'test'\? .* none or nothing"),
        ("name,split\na,train\nb,test\na,test\n", r"line 4: 'a' stands in line 2 already"),
        ("name,split\na,train\n,test\n", r"line 3: the name of the image is missing"),
        ("name,split\na,train\nb\n", r"line 3: 1 cells, but the header has 2"),
        ("name,split\na, b,train\n", r"line 2: 3 cells, but the header has 2\. .*quotes around a name with a comma"),
        ('name,split\n"a"b,train\n', r"line 2: not a CSV"),
    ],
)
def test_bad_tables(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_table(written(tmp_path, text))


def test_bad_files(tmp_path):
    with pytest.raises(InputError, match=r"splits\.csv is not text in UTF-8: .*Save the table as CSV in UTF-8"):
        read_table(written(tmp_path, "name,split\nZellkörper,train\n", "latin-1"))
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_table(written(tmp_path, "name,split\na,train\n", "utf-16"))
    with pytest.raises(FileNotFoundError, match=r"split\.file: there is no file .*other\.csv\."):
        read_table(tmp_path / "other.csv")
    with pytest.raises(FileNotFoundError, match=r"split\.file: there is no file"):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": None}, r"split\.by is csv, but split\.file names no table"),
        ({"fold": "1/5"}, r"split\.fold is '1/5', but with split\.by: csv the table alone decides"),
        ({"gap": 2}, r"split\.gap is 2, but only split\.by: block"),
        ({"train": ["01"]}, r"split\.train is \['01'\], but with split\.by: csv the table alone decides"),
        ({"by": "image"}, r"split\.file is set, but split\.by is image\. Set split\.by: csv"),
        ({"table": TABLE | {"cell2": "train"}}, r"split\.file puts none of its 5 images into the split 'test'"),
        ({"table": TABLE | {"cell0": "none"}}, r"none of its 5 images into the split 'train'"),
        ({"table": TABLE | {"cell0": "tran"}}, r"split\.file, 'cell0': 'tran' is no split\. Did you mean 'train'\?"),
        (
            {"table": {name: one for name, one in TABLE.items() if name > "cell2"}},
            r"split\.file does not list 3 of 5 images: cell0, cell1, cell2\. Add a line for each; none as its split",
        ),
        (
            {"table": TABLE | {f"more{i}": "" for i in range(7)}},
            r"lists 7 of 12 names that no image has: more0, more1, more2, more3, more4 and 2 more\. .*cell0, cell1, ",
        ),
        (
            {"table": {f"{name}.tif": one for name, one in TABLE.items()}},
            r"5 of 5 names that no image has: cell0\.tif, .*Did you mean 'cell0'\?",
        ),
    ],
)
def test_what_does_not_fit(options, message):
    with pytest.raises(InputError, match=message):
        assign(single(5), **(DEFAULTS | {"table": TABLE} | options))
