"""The dataset loader: where it looks, what it hashes, what it refuses."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import data
from harness.errors import BadInput


@pytest.fixture
def small_mirror(tmp_path, monkeypatch):
    folder = tmp_path / "Salesforce/wikitext/wikitext-2-v1"
    folder.mkdir(parents=True)
    parquet.write_table(pa.table({"text": ["a b", "c"]}), folder / "test.parquet")
    local = tmp_path / "local/open_english_text/default"
    local.mkdir(parents=True)
    parquet.write_table(pa.table({"text": [f"document {i}" for i in range(400)]}), local / "train.parquet")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    data._manifest.cache_clear()
    yield tmp_path
    data._manifest.cache_clear()


def test_reads_the_mirror_by_short_name_and_by_hub_id(small_mirror):
    short = data.load("wikitext2")
    by_id = data.load("Salesforce/wikitext:wikitext-2-v1:test")
    assert short.column("text") == ["a b", "c"] == by_id.column("text")
    assert short.hash == by_id.hash == data.content_hash("wikitext2")
    assert short.ids() == ["test:0", "test:1"]


def test_limit_keeps_the_hash_of_the_whole_split(small_mirror):
    assert len(data.load("wikitext2", limit=1)) == 1
    assert data.load("wikitext2", limit=1).hash == data.load("wikitext2").hash


def test_held_out_documents_and_the_rest_are_a_partition(small_mirror):
    train, held = data.load("open-english-text", split="train"), data.load("open-english-text", split="heldout")
    assert len(train) + len(held) == 400
    assert not set(train.column("text")) & set(held.column("text"))
    assert 5 <= len(held) <= 40
    assert train.hash != held.hash == data.content_hash("open-english-text:heldout")


def test_a_changed_file_is_refused_with_both_hashes(small_mirror):
    (small_mirror / "SHA256SUMS").write_text("0" * 64 + "  Salesforce/wikitext/wikitext-2-v1/test.parquet\n")
    with pytest.raises(BadInput, match=r"test\.parquet: its content has changed: sha256 .* SHA256SUMS says 0000"):
        data.content_hash("wikitext2")


def test_the_hash_follows_the_content(small_mirror):
    before = data.content_hash("wikitext2")
    file = small_mirror / "Salesforce/wikitext/wikitext-2-v1/test.parquet"
    parquet.write_table(pa.table({"text": ["other words"]}), file)
    assert data.content_hash("wikitext2") != before


def test_generated_data_needs_no_mirror_and_hashes_its_values(monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    train, test = data.load("digits", split="train"), data.load("digits", split="test")
    assert len(train) + len(test) == 1797
    assert not set(train.ids()) & set(test.ids())
    assert test.hash == data.content_hash("digits:test") != train.hash


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wikitext", "unknown dataset 'wikitext'; did you mean wikitext2"),
        ("wikitext2:dev", "not at hand"),
        ("stsb:stsb:dev", "no split 'dev'; it has train, validation, test"),
        ("a:b:c:d", "too many parts"),
    ],
)
def test_bad_names_are_one_line(name, message, small_mirror):
    with pytest.raises(BadInput, match=message) as caught:
        data.load(name)
    assert "\n" not in str(caught.value)


def test_missing_data_says_where_it_looked_and_how_to_get_it(monkeypatch):
    monkeypatch.delenv("HARNESS_DATA", raising=False)

    def unreachable(source):
        raise ConnectionError("no network")

    monkeypatch.setattr(data, "_load_hub", unreachable)
    with pytest.raises(BadInput, match="hf download --repo-type dataset Salesforce/wikitext") as caught:
        data.load("wikitext2")
    assert "HARNESS_DATA is not set" in str(caught.value)
    with pytest.raises(BadInput, match="the Hub has none of that name"):
        data.load("open-english-text")


def test_a_mirror_that_is_no_folder_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="is not a folder"):
        data.load("wikitext2")


def test_every_catalogued_dataset_of_the_mirror_is_described(mirror):
    found = [name for name in data.names() if not data.describe(name).get("generator")]
    assert len(found) > 20
    for name in ("blimp", "stsb", "cifar10"):
        dataset = data.load(name, limit=5)
        assert len(dataset) == 5
        assert len(set(dataset.ids())) == 5


def test_blimp_items_carry_their_paradigm(mirror):
    dataset = data.load("blimp")
    assert len(dataset) == 67_000
    assert dataset.ids()[0].startswith("adjunct_island:")
