"""Decisions on single photos: nothing is lost on the way, everything wrong is said at once, no photo is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wildtune.errors import PhotosError
from wildtune.photos.catalogue import Catalogue, Photo, create_catalogue
from wildtune.photos.corrections import Correction, apply_corrections, load_corrections, save_corrections

TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=30)
ODD = st.one_of(
    TEXT, st.sampled_from(['a,"b"/c\nd\r.jpg', " lead", "=1+1", "рысь/🦊.jpg", "\ufeff", "'", "a\rb", "\x00"])
)
DECISIONS = st.one_of(st.tuples(st.sampled_from(["keep", "drop"]), st.just("")), st.tuples(st.just("relabel"), ODD))


def catalogue() -> Catalogue:
    photos = [Photo(f"{label}/{i}.jpg", label, f"{label}{i}", group=f"g{i}") for label in "ab" for i in range(3)]
    return create_catalogue(Path("photos"), photos, ("a notice",))


def as_the_page_writes(corrections: list[Correction]) -> bytes:
    def quote(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    rows = [",".join(map(quote, (c.path, c.action, c.label))) + "\n" for c in corrections]
    return ("\ufeffpath,action,label\n" + "".join(rows)).encode()


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(ODD, DECISIONS, max_size=6))
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, decisions: dict[str, tuple[str, str]]
) -> None:
    given_ones = [Correction(path, *decision) for path, decision in decisions.items()]
    file = tmp_path_factory.getbasetemp() / "corrections.csv"
    save_corrections(given_ones, file)
    assert list(load_corrections(file)) == given_ones
    file.write_bytes(as_the_page_writes(given_ones))
    assert list(load_corrections(file)) == given_ones


@settings(max_examples=100, deadline=None)
@given(st.lists(ODD, min_size=2, max_size=6, unique=True), st.data())
def test_odd_names_are_found_again_in_the_catalogue(paths: list[str], data: st.DataObject) -> None:
    photos = [Photo(path, data.draw(st.sampled_from(["a", "b"])), str(i)) for i, path in enumerate(paths)]
    before = create_catalogue(Path("p"), [*photos, Photo("x" * 40, "a"), Photo("y" * 40, "b")])
    chosen = data.draw(st.sampled_from(photos))
    after = apply_corrections(before, [Correction(chosen.path, "drop")], Path("c.csv"))
    assert {p.path for p in before.photos} - {p.path for p in after.photos} == {chosen.path}


def test_keep_drop_and_relabel() -> None:
    before = catalogue()
    after = apply_corrections(
        before,
        [Correction("a/0.jpg", "drop"), Correction("a/1.jpg", "relabel", "b"), Correction("b/2.jpg", "keep")],
        Path("corrections.csv"),
    )
    labels = {photo.path: photo.label for photo in after.photos}
    assert labels == {"a/1.jpg": "b", "a/2.jpg": "a", "b/0.jpg": "b", "b/1.jpg": "b", "b/2.jpg": "b"}
    assert {photo.group for photo in after.photos if photo.path == "a/1.jpg"} == {"g1"}
    assert after.notices == ("a notice", "Corrections from corrections.csv: 1 relabelled, 1 dropped, 1 confirmed.")
    assert before == catalogue()
    assert apply_corrections(before, [], Path("c")).photos == before.photos


def test_every_unknown_name_is_said_at_once() -> None:
    wrong = [Correction("a/0.jpeg", "drop"), Correction("a/1.jpg", "relabel", "c"), Correction("q", "relabel", "d")]
    with pytest.raises(PhotosError) as caught:
        apply_corrections(catalogue(), wrong, Path("my.csv"))
    said = str(caught.value)
    assert said.startswith("my.csv has 4 problems:")
    for part in ("'a/0.jpeg' is none of the photos; did you mean 'a/0.jpg'?", "'c': no such class", "'q'", "'d'"):
        assert part in said
    assert caught.value.exit_status == 3


def test_every_bad_row_is_said_at_once(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_text("path,action,label\na,remove,\nb,relabel,\n,drop,\nc,drop,\nc,keep,\nd,keep,\nd,keep,\n")
    with pytest.raises(PhotosError) as caught:
        load_corrections(file)
    said = str(caught.value)
    for part in ("4 problems", "line 2", "'remove'", "line 3", "label is empty", "no path", "'drop' and 'keep'"):
        assert part in said
    file.write_text("\n\nfile;action;label\n")
    with pytest.raises(PhotosError, match="must have the columns"):
        load_corrections(file)
    with pytest.raises(PhotosError, match="cannot be read"):
        load_corrections(tmp_path / "none.csv")
    file.write_bytes(b"path,action,label\n\xff,drop,\n")
    with pytest.raises(PhotosError, match="UTF-8"):
        load_corrections(file)


def test_columns_in_another_order_from_a_spreadsheet(tmp_path: Path) -> None:
    file = tmp_path / "c.csv"
    file.write_bytes("\ufefflabel,remark,Path,Action\r\nb,why,a/0.jpg,relabel\r\n\r\n,,a/1.jpg,drop\r\n".encode())
    assert load_corrections(file) == (Correction("a/0.jpg", "relabel", "b"), Correction("a/1.jpg", "drop"))


def test_many_problems_are_counted_and_not_all_printed() -> None:
    with pytest.raises(PhotosError, match="and 30 more"):
        apply_corrections(catalogue(), [Correction(f"q{i}", "drop") for i in range(50)], Path("c.csv"))
