"""In a notebook: results show themselves as tables and figures, and a run prints the lines of its epochs once."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

import goodfit
from goodfit.artefacts.predictor import ClassProbability, Estimate, Prediction
from goodfit.artefacts.run import Run
from goodfit.evaluation.metrics import ClassificationEvaluation, ClassResult, RegressionEvaluation

CELLS = (
    "import sys, goodfit",
    'run = goodfit.train("digits", model="mlp", epochs=3, out="run", settings={"train.threads": 1, "data.max_train": 300})',
    "run",
    "run.test",
    "goodfit.plot_history(run)",
    'print("matplotlib.pyplot" in sys.modules)',
    "import matplotlib.pyplot",
    "goodfit.plot_confusion(run.test)",
    """
import time
from goodfit.display import Display
screen = Display(sys.stdout)
screen.progress("counting pictures", 1, 10)
screen.progress("decoding pictures", 1, 10)
screen.progress("decoding pictures", 4, 10)
time.sleep(3)
""",
)


def rows(shown: Any) -> list[list[str]]:
    """Return the cells of the table that a notebook shows, which must be well-formed."""
    return [["".join(cell.itertext()) for cell in row] for row in ET.fromstring(shown._repr_html_()).iter("tr")]


def classification(names: list[str]) -> ClassificationEvaluation:
    results = tuple(
        ClassResult(name, 1000, accuracy=index / 100, precision=0.5, recall=index / 100, f1=0.25)
        for index, name in enumerate(names)
    )
    return ClassificationEvaluation("test", 1000, 0.5, 0.9, (0.88, 0.92), 0.01, results, ((0,),))


def test_predictions_are_tables() -> None:
    prediction = Prediction("cat", 0.75, (ClassProbability("cat", 0.75), ClassProbability("<b>&\udce9", 0.2)))
    assert rows(prediction) == [["class", "probability"], ["cat", "75.0%"], ["<b>&\\udce9", "20.0%"]]
    assert rows(Estimate(12345.678)) == [["value", "12,345.7"]]


def test_data_sets_are_tables() -> None:
    targets = np.arange(360) % 60
    data = goodfit.trainer(
        (np.random.default_rng(0).normal(size=(360, 3)), targets), model="mlp", settings={"data.task": "classification"}
    )
    shown = rows(data.plan.dataset)
    assert shown[0] == ["examples", "train", "val", "test"]
    assert shown[1][0] == "all"
    assert sum(map(int, shown[1][1:])) == 360
    assert len(shown) == 2 + 50
    assert "memory: classification from inputs of (3,); 10 more classes are left out" in data.plan.dataset._repr_html_()


def test_evaluations_are_tables() -> None:
    few = classification(["cat", "<script>alert(1)</script>"])
    assert rows(few)[0] == ["class", "examples", "accuracy", "precision", "F1"]
    assert rows(few)[2] == ["<script>alert(1)</script>", "1,000", "1.0%", "50.0%", "25.0%"]
    assert "test: accuracy 90.0% (95% interval 88.0% to 92.0%)" in few._repr_html_()
    many = classification([f"class {index}" for index in range(50)])
    assert [row[0] for row in rows(many)[1:]] == [f"class {index}" for index in range(20)]
    assert "the 20 worst of 50 classes" in many._repr_html_()
    number = RegressionEvaluation("val", 10, 0.5, 1234.5, 2345.6, None)
    assert rows(number)[:2] == [["rmse", "2,346"], ["mae", "1,234"]]
    assert rows(number)[2] == ["R²", "undefined: the targets do not vary"]


def test_a_run_that_is_not_done_says_how_it_goes_on(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('data.name = "a & b"\nmodel.name = "mlp"\n')
    shown = dict(rows(Run(tmp_path)))
    assert shown == {
        "run": str(tmp_path),
        "data": "a & b",
        "model": "mlp",
        "unfinished": f'goodfit.resume("{tmp_path}")',
    }


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """The outputs of each cell of a notebook that a real kernel has run."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder / name))
        NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    return [cell.outputs for cell in notebook.cells]


def printed(outputs: list[dict[str, Any]]) -> str:
    assert {output["output_type"] for output in outputs} == {"stream"}
    assert {output["name"] for output in outputs} == {"stdout"}
    return "".join(output["text"] for output in outputs)


def test_a_run_prints_each_epoch_once(executed: list[list[dict[str, Any]]]) -> None:
    text = printed([output for output in executed[1] if output["output_type"] == "stream"])
    assert not re.search(r"[\r\x1b━]", text)
    lines = [line for line in text.splitlines() if line]
    assert len(set(lines)) == len(lines)
    assert len(re.findall(r"^ +[123]( +\d+\.\d{4}){2} +\d+\.\d% +\d+\.\d s(  best)?$", text, re.M)) == 3
    assert not re.search(r"step \d+ of", text)
    [line] = [output for output in executed[1] if output["output_type"] != "stream"]
    assert line["data"] == {"text/plain": ""}, "the bar has gone"


def test_long_work_is_one_output_that_is_replaced(executed: list[list[dict[str, Any]]]) -> None:
    gone, there = executed[8]
    assert gone["data"] == {"text/plain": ""}
    assert re.fullmatch(r"decoding pictures  ━+╸? +4/10 .*", there["data"]["text/plain"])


def test_results_show_themselves(executed: list[list[dict[str, Any]]]) -> None:
    (run,), (test,) = executed[2:4]
    assert "3 epochs in" in run["data"]["text/html"]
    assert test["data"]["text/html"].count("<tr>") == 11


def test_figures_show_themselves_with_and_without_pyplot(executed: list[list[dict[str, Any]]]) -> None:
    (history,), said, loaded, (confusion,) = executed[4:8]
    assert printed(said) == "False\n"
    assert loaded == []
    assert history["data"]["image/png"].startswith("iVBOR")
    assert history["metadata"]["image/png"] == {"width": 1000, "height": 380}
    assert confusion["data"]["image/png"].startswith("iVBOR")
