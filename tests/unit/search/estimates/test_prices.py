"""What a search costs in money."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autovision.errors import InvalidInput
from autovision.records.searches import PriceTable
from autovision.search.estimates import prices

TABLE = PriceTable(currency="EUR", cpu=0.05, gpu=2.0, gpus={"A100": 3.0}, nodes={"spot": 0.7})


def node(labels: dict[str, str] | None = None, **resources: float) -> dict[str, object]:
    return {"Resources": resources, "Labels": labels}


def test_a_table_is_read_from_toml_and_json(tmp_path: Path) -> None:
    as_toml, as_json = tmp_path / "p.toml", tmp_path / "p.json"
    as_toml.write_text(
        'currency = "EUR"\ncpu = 0.05\ngpu = 2.0\n[gpus]\nA100 = 3.0\n[nodes]\nspot = 0.7\n', encoding="utf-8"
    )
    as_json.write_text(json.dumps(TABLE.model_dump()), encoding="utf-8")
    assert prices.load(as_toml) == prices.load(as_json) == TABLE


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("p.toml", "currency = ", "not valid"),
        ("p.json", "{", "not valid"),
        ("p.toml", "cpu = 1.0", "currency: Field required"),
        ("p.toml", 'currency = "EUR"\ncpu = -1', "cpu: Input should be greater"),
        ("p.toml", 'currency = "EUR"\ncpus = 1', "cpus: Extra inputs"),
        ("p.toml", 'currency = "EUR"\n[gpus]\nA100 = "much"', "gpus.A100: Input should be a valid number"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInput, match=fault) as caught:
        prices.load(path)
    assert str(path) in str(caught.value) and "currency" in str(caught.value)


def test_a_table_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        prices.load(tmp_path / "none.toml")
    monkeypatch.setenv(prices.ENVIRONMENT_VARIABLE, str(tmp_path / "none.toml"))
    with pytest.raises(InvalidInput, match="cannot be read"):
        prices.configured()
    monkeypatch.setenv(prices.ENVIRONMENT_VARIABLE, "")
    assert prices.configured() is None


def test_a_cluster_costs_what_is_in_it() -> None:
    assert prices.per_hour(TABLE, [node(CPU=4), node(CPU=2)]) == pytest.approx(0.3)
    assert prices.per_hour(TABLE, [node(CPU=2, GPU=2)]) == pytest.approx(4.1)
    named = node(CPU=2, GPU=2, **{"accelerator_type:A100": 1.0})
    assert prices.per_hour(TABLE, [named]) == pytest.approx(6.1)
    assert prices.per_hour(TABLE, [node({"ray.io/node-group": "spot"}, CPU=64, GPU=8)]) == 0.7
    assert prices.per_hour(TABLE, [node({"ray.io/node-group": "other"}, CPU=2)]) == pytest.approx(0.1)


def test_what_has_no_price_is_named() -> None:
    little = PriceTable(currency="EUR", cpu=0.05)
    with pytest.raises(InvalidInput, match="no price of a GPU A100"):
        prices.per_hour(little, [node(CPU=1, GPU=1, **{"accelerator_type:A100": 1.0})])
    with pytest.raises(InvalidInput, match="no price of a CPU"):
        prices.per_hour(PriceTable(currency="EUR", gpu=1.0), [node(CPU=1)])


def test_this_node_is_the_cluster_where_there_is_none() -> None:
    (here,) = prices.cluster()
    assert here["Resources"]["CPU"] >= 1


def test_money_is_written_with_its_currency() -> None:
    assert (prices.money(3.4, "EUR"), prices.money(0.0123, "USD"), prices.money(0, "EUR")) == (
        "3.40 EUR",
        "0.0123 USD",
        "0.00 EUR",
    )
