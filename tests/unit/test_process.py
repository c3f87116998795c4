from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import gateway
from gateway.process import environment, python

ROOT = Path(gateway.__file__).parents[1]


def test_a_child_takes_no_code_from_the_folder_it_is_in(tmp_path: Path) -> None:
    planted = tmp_path / "gateway"
    planted.mkdir()
    (planted / "__init__.py").write_text("")
    (planted / "version.py").write_text("print('planted')")
    told = "import gateway.version, json, sys; print(json.dumps([gateway.__file__, sys.argv[1:]]))"
    asked = ("-c", told, "x")
    careless = subprocess.run([sys.executable, *asked], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert careless.stdout.startswith("planted")
    child = subprocess.run(
        python(*asked), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=True
    )
    assert json.loads(child.stdout) == [str(ROOT / "gateway" / "__init__.py"), ["x"]]


def test_its_environment_is_this_ones_and_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("ORGATE_Y", "2")
    found = environment(ORGATE_X="1")
    assert (found["ORGATE_X"], found["ORGATE_Y"]) == ("1", "2")
    assert found["PYTHONPATH"] == f"{ROOT}:/elsewhere"
