import io
import os
import pty
import random
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch

from goodfit.artefacts.predictor import Predictor
from goodfit.artefacts.records import EndRecord, EvaluationRecord, TrainRecord
from goodfit.artefacts.run import Run
from goodfit.config import Layer
from goodfit.data.named import list_named
from goodfit.display import Display
from goodfit.display.columns import Column, lay_out
from goodfit.display.text import count, duration, flops, loss_number, number, printable
from goodfit.distributed import Ranks
from goodfit.evaluation.metrics import ClassificationEvaluation, ClassResult
from goodfit.models.summary import summarize
from goodfit.planning import Plan
from goodfit.prediction import PredictionResult, predict_inputs
from goodfit.session import Session, make_session
from goodfit.signals import StopSignals
from goodfit.training.recipes import RECIPES, load_recipe
from goodfit.workflows import Request, plan, train

BAR = "━"
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
SETTINGS = {"train.threads": 1, "train.epochs": 2, "train.batch_size": 16, "model.hidden": [4]}


def request(data: Path, target: str, **settings: object) -> Request:
    values = {"data.name": str(data), "data.target": target, "model.name": "mlp"} | SETTINGS | settings
    return Request(layers=[Layer("--set", values)], out=data.parent / f"run of {target}")


def write_table(folder: Path) -> Path:
    draw = random.Random(0)
    rows = []
    for _ in range(200):
        size, weight = draw.random(), draw.random()
        rows.append(f"{size:.4f},{weight:.4f},{'large' if size + weight > 1 else 'small'},{size * 1000 - weight:.3f}")
    path = folder / "things.csv"
    path.write_text("size,weight,kind,price\n" + "\n".join(rows) + "\n")
    return path


class Trained:
    """Two real runs, and what was seen of them where there is no terminal."""

    def __init__(self, folder: Path) -> None:
        self.table = write_table(folder)
        self.kind, self.kind_text = self._train("kind", **{"model.dropout": 0.1})
        self.price, self.price_text = self._train("price", **{"data.val": 0.0})

    def _train(self, target: str, **settings: object) -> tuple[Run, str]:
        stream = io.StringIO()
        display = Display(stream)
        run = train(request(self.table, target, **settings), display, StopSignals())
        display.show_run(run)
        return run, stream.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        return Trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def planned(trained: Trained) -> Plan:
    return plan(request(trained.table, "kind"), Display(io.StringIO()))


@pytest.fixture
def session(planned: Plan) -> Session:
    return make_session(planned, Ranks(), lambda: False)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")


class Terminal:
    """A real pseudo-terminal: `stream` is what a program prints to, `seen` what has arrived."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        self.stream = os.fdopen(slave, "w", encoding="utf-8")
        self._bytes = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._master, 65536):
                self._bytes += part
        except OSError:  # how Linux says that the other end is closed
            pass

    @property
    def seen(self) -> str:
        return self._bytes.decode(errors="replace")

    def wait_for(self, text: str, after: int = 0) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen[after:]:
            assert time.monotonic() < deadline, f"{text!r} has not come: {self.seen!r}"
            time.sleep(0.02)

    def close(self) -> str:
        self.stream.close()
        self._thread.join()
        os.close(self._master)
        return self.seen


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    if not made.stream.closed:
        made.close()


def shown(act: Callable[[Display], object]) -> str:
    stream = io.StringIO()
    act(Display(stream))
    return stream.getvalue()


def assert_plain(text: str) -> None:
    assert text
    assert not [letter for letter in text if unicodedata.category(letter) == "Cc" and letter != "\n"]
    assert BAR not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]


# --- where there is no terminal


def test_a_plain_run_says_what_is_promised(trained: Trained) -> None:
    text = trained.kind_text
    assert_plain(text)
    for fact in (
        "things, rows of 3 features (train 144, val 16, test 40)",
        "classification, 2 classes: large, small",
        "mlp: 26 parameters",
        "2 epochs of 9 steps of 16 examples",
        "cpu, ",
        "95% interval",
        str(trained.kind.path),
        str(trained.kind.model),
        f"goodfit evaluate '{trained.kind.path}'",
    ):
        assert fact in text
    assert re.search(r"^fc1 +Linear +4 +16$", re.sub(r"^ +", "", text, flags=re.M), re.M)
    assert re.search(r"^epoch  train loss   val loss  val accuracy       time$", text, re.M)
    assert len(re.findall(r"^    [12]( +\d+\.\d{4}){2} +\d+\.\d% +\d+\.\d s(  best)?$", text, re.M)) == 2
    assert re.search(r"^  large +\d+( +\d+\.\d%){3}$", text, re.M)
    assert text.count("95% interval") == 1, "the result is said once"


def test_a_curve_on_the_test_split_is_marked(trained: Trained) -> None:
    assert_plain(trained.price_text)
    assert "regression, a number to predict" in trained.price_text
    assert re.search(r"^epoch  train loss  test loss  test rmse    test R²       time$", trained.price_text, re.M)
    assert "no validation split: the curve is on the test split" in trained.price_text
    assert "looked at 3 times" in " ".join(trained.price_text.split())
    assert "best\n" not in trained.price_text


def test_only_paths_are_wider_than_the_screen(trained: Trained) -> None:
    for line in (trained.kind_text + trained.price_text).splitlines():
        assert len(line) <= 80 or str(trained.table.parent) in line


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_steps(session: Session, trained: Trained) -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.begin(session, trained.kind.path)
    assert trained.kind.val
    for step, loss in ((2, 4.0), (8, 1.0)):
        display.observe(TrainRecord(step, step / 9, loss, 0.1, 1.0, 100.0))
    display.observe(EvaluationRecord(9, 1, trained.kind.val, True, 65.0))
    assert re.search(r"^    1 +1\.7500 .* 1 min 05 s  best$", stream.getvalue(), re.M)


def test_a_long_epoch_is_not_silent(session: Session, trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    display = Display(stream)
    display.begin(session, trained.kind.path)
    now = time.perf_counter()
    for step in range(1, 5):
        monkeypatch.setattr(time, "perf_counter", lambda step=step: now + 8 * step)
        display.observe(TrainRecord(step, step / 9, 0.5, 0.1, 8.0 * step, 1234.4))
    assert len(re.findall(r"^step [24] of 18, training loss 0\.5000, 1,234 rows/s, .* left$", stream.getvalue(), re.M)) == 2


def test_long_work_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.perf_counter()
    stream = io.StringIO()
    display = Display(stream)
    for second in range(41):
        monkeypatch.setattr(time, "perf_counter", lambda second=second: now + second)
        display.progress("decoding pictures", second * 25, 1000)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "decoding pictures: 100 of 1,000 (10.0%), 36 s left"
    assert len(lines) == 10
    assert lines[-1] == "decoding pictures: 1,000 in 40 s"


def test_quick_work_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.perf_counter()
    monkeypatch.setattr(time, "perf_counter", lambda: now + 0.4)
    assert shown(lambda display: [display.progress("decoding pictures", n, 500) for n in range(0, 501, 5)]) == ""


def test_a_dumb_terminal_gets_plain_lines(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    display = Display(terminal.stream)
    display.progress("decoding pictures", 1, 3)
    display.say("hello")
    assert terminal.close() == "hello\r\n"


# --- not at all


def test_a_silent_display_writes_nothing(session: Session, trained: Trained, terminal: Terminal) -> None:
    display = Display(terminal.stream, is_silent=True)
    display.say("hello")
    display.progress("decoding pictures", 1, 3)
    display.begin(session, trained.kind.path)
    display.observe(EndRecord(18, 2.0, "all epochs done", 1.0))
    display.close()
    display.show_run(trained.kind)
    display.show_datasets(list_named())
    assert terminal.close() == ""


def test_a_loss_that_was_asked_for_is_a_line(trained: Trained, tmp_path: Path) -> None:
    stream = io.StringIO()
    asked = request(trained.table, "kind", **{"log.every_steps": 4})
    train(Request(layers=asked.layers, out=tmp_path / "run"), Display(stream), StopSignals())
    said = [line.split(",")[0] for line in stream.getvalue().splitlines() if "training loss" in line]
    assert said == [f"step {step} of 18" for step in (4, 8, 9, 12, 16, 18)]
    assert "training loss" not in trained.kind_text, "and one that was not stays away"


# --- at a terminal


def test_the_bar_looks_at_the_state_by_itself(session: Session, trained: Trained, terminal: Terminal) -> None:
    with closing(Display(terminal.stream)) as display:
        display.begin(session, trained.kind.path)
        terminal.wait_for("step 0/18")
        for step in range(4, 7):
            session.state.step = step
            terminal.wait_for(f"step {step}/18")
        assert BAR in terminal.seen
        assert "rows/s" in terminal.seen
        session.state.step = 9
        terminal.wait_for("evaluating")
        assert trained.kind.val
        display.observe(TrainRecord(9, 1.0, 0.5, 0.1, 1.0, 43210.0))
        display.observe(EvaluationRecord(9, 1, trained.kind.val, True, 1.0))
        terminal.wait_for("43,210 rows/s", after=terminal.seen.rindex("evaluating"))
        display.observe(EndRecord(9, 1.0, "early stopping", 1.0))
    text = terminal.close()
    assert text.rindex(SHOW) > text.rindex(HIDE), "the cursor is there again"
    assert BAR not in text[text.rindex("trained") :], "and the bar is gone"
    assert "1 epoch in 1.0 s (early stopping)" in text


def test_a_short_epoch_has_a_speed_too(session: Session, trained: Trained, terminal: Terminal) -> None:
    display = Display(terminal.stream)
    display.begin(session, trained.kind.path)
    display.observe(TrainRecord(1, 1 / 9, 0.5, 0.1, 0.1, 43210.0))
    terminal.wait_for("43,210 rows/s")
    display.close()


def test_a_bar_that_is_gone_has_left_no_thread(session: Session, trained: Trained, terminal: Terminal) -> None:
    """Which would hold the run's tensors, and release them while the interpreter leaves: that ends in an abort."""
    display = Display(terminal.stream)
    before = threading.active_count()
    display.begin(session, trained.kind.path)
    assert threading.active_count() == before + 1
    display.close()
    assert threading.active_count() == before


def test_a_killed_process_leaves_a_cursor(session: Session, trained: Trained, terminal: Terminal) -> None:
    display = Display(terminal.stream)
    display.begin(session, trained.kind.path)
    terminal.wait_for(BAR)
    time.sleep(0.3)
    assert terminal.seen.rindex(SHOW) > terminal.seen.rindex(HIDE)
    display.close()


def test_the_bar_leaves_room_for_what_the_terminal_echoes(session: Session, trained: Trained, terminal: Terminal) -> None:
    display = Display(terminal.stream)
    display.begin(session, trained.kind.path)
    terminal.wait_for(BAR)
    display.close()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.close())
    lengths = [len(line) for line in re.split(r"[\r\n]", plain) if BAR in line]
    assert 60 < max(lengths) <= 76


def test_a_stopped_run_says_how_it_goes_on(session: Session, trained: Trained, terminal: Terminal) -> None:
    display = Display(terminal.stream)
    display.begin(session, trained.kind.path)
    session.state.step = 7
    display.close()
    display.close()
    text = terminal.close()
    assert "at step 7 of 18" in text
    assert text.count(f"goodfit resume '{trained.kind.path}'") == 1
    assert text.rindex(SHOW) > text.rindex(HIDE)


def test_an_error_speaks_for_itself(session: Session, trained: Trained, terminal: Terminal) -> None:
    display = Display(terminal.stream)
    display.begin(session, trained.kind.path)
    with pytest.raises(RuntimeError), closing(display):
        raise RuntimeError
    text = terminal.close()
    assert "goodfit resume" not in text
    assert text.rindex(SHOW) > text.rindex(HIDE)


def test_work_that_fails_takes_its_bar_along(terminal: Terminal) -> None:
    display = Display(terminal.stream)
    display.progress("decoding pictures", 1, 3)
    terminal.wait_for("1/3")
    display.close()
    display.say("goodbye")
    text = terminal.close()
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert BAR not in text[text.rindex(HIDE) + len(HIDE) :].rpartition("\x1b[2K")[2]
    assert text.endswith("goodbye\r\n")


def test_colours_go_where_they_are_not_wanted(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    Display(terminal.stream).show_prediction(PredictionResult("7.png", error="it is damaged"))
    assert not re.search(r"\x1b\[3[0-7]", terminal.close())


# --- what the verbs show


def test_a_plan_shows_every_value_and_its_source(planned: Plan) -> None:
    assert_plain(text := shown(lambda display: display.show_plan(planned)))
    for key, value in planned.config.flat().items():
        assert re.search(rf"^  {key.partition('.')[2]} ", text, re.M), key
        assert str(value).lower() in text.lower() or isinstance(value, list)
    assert re.search(r"^  epochs +2 +--set$", text, re.M)
    assert re.search(r"^  momentum +0\.0 +default$", text, re.M)
    assert "18 steps in all" in text


def test_runs_are_listed_best_first(trained: Trained, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    for name in ("config.toml", "best.safetensors"):  # the model was tested before the run was given more epochs
        (unfinished / name).write_bytes((trained.kind.path / name).read_bytes())
    (unfinished / "checkpoints" / "step-1200").mkdir(parents=True)
    (unfinished / "metrics.jsonl").write_text('{"event": "train", "step": 1200, "epoch": 1.0, "loss": 1.0}\n')
    assert_plain(text := shown(lambda display: display.show_runs([Run(unfinished), trained.price, trained.kind])))
    places = [text.index(part) for part in (str(trained.kind.path), str(trained.price.path), str(unfinished))]
    assert places == sorted(places)
    assert f"unfinished at step 1,200: goodfit resume {unfinished}" in text
    assert trained.kind.test
    assert isinstance(trained.kind.test, ClassificationEvaluation)
    assert f"{trained.kind.test.accuracy:.1%} (" in text
    assert shown(lambda display: display.show_runs([])) == "no runs here yet; goodfit train makes one\n"


def test_a_damaged_run_does_not_hide_the_others(trained: Trained, tmp_path: Path) -> None:
    for name in ("config.toml", "metrics.jsonl"):
        (tmp_path / name).write_bytes((trained.kind.path / name).read_bytes())
    (tmp_path / "best.safetensors").write_bytes(b"no model")
    text = shown(lambda display: display.show_runs([Run(tmp_path), trained.kind]))
    assert str(trained.kind.path) in text
    assert f"damaged: '{tmp_path}/best.safetensors' is not a model file" in text.replace("\n", " ")


def test_predictions_align_and_bad_inputs_are_marked(trained: Trained) -> None:
    results = list(predict_inputs(Predictor.load(trained.kind.path), [str(trained.table)], top=2))[:3]
    bad = PredictionResult("x.csv:9", error="the row has no size")
    assert_plain(text := shown(lambda display: [display.show_prediction(result) for result in [*results, bad]]))
    lines = text.splitlines()
    assert len({line.index("%") for line in lines[:3]}) == 1
    assert re.search(r":2  (large|small)  +\d+\.\d%  \((large|small) \d+\.\d%\)$", lines[0])
    assert re.fullmatch(r"x\.csv:9 +error: the row has no size", lines[3])
    value = next(predict_inputs(Predictor.load(trained.price.path), [str(trained.table)]))
    assert re.search(r":2 +-?[\d,.]+$", shown(lambda display: display.show_prediction(value)))


def evaluation(num_classes: int) -> ClassificationEvaluation:
    per_class = tuple(ClassResult(f"class {n}", 10, n / num_classes, 0.5, 0.5, 0.5) for n in range(num_classes))
    confusion = tuple(tuple(7 if row == column else 0 for column in range(num_classes)) for row in range(num_classes))
    return ClassificationEvaluation("test", 10 * num_classes, 0.5, 0.5, (0.4, 0.6), 0.1, per_class, confusion)


def test_of_many_classes_the_worst_are_shown() -> None:
    assert_plain(text := shown(lambda display: display.show_evaluation(evaluation(30))))
    assert text.count("  class ") == 21
    assert "class 0 " in text
    assert "class 29" not in text
    assert "the 20 worst of 30 classes" in text


def test_the_confusion_matrix_of_few_classes_is_shown() -> None:
    assert_plain(text := shown(lambda display: display.show_evaluation(evaluation(12))))
    assert len(re.findall(r"^  +\d+ class \d+ +7$", text, re.M)) == 12
    assert "taken for" not in shown(lambda display: display.show_evaluation(evaluation(13)))
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("width", [80, 120])
def test_the_lists_fit_the_screen(width: int, monkeypatch: pytest.MonkeyPatch, session: Session) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    summary = summarize(session.state.model, torch.zeros(1, *session.plan.architecture.input_shape))
    texts = {
        "cifar100": shown(lambda display: display.show_datasets(list_named())),
        "resnet18": shown(lambda display: display.show_models()),
        "FLOPs for one example": shown(lambda display: display.show_summary(summary)),
        "mnist-mlp": shown(lambda display: display.show_recipes([load_recipe(name) for name in RECIPES])),
        "one-cycle": shown(lambda display: display.show_recipe(load_recipe("table"))),
    }
    for fact, text in texts.items():
        assert_plain(text)
        assert fact in text
        assert max(map(len, text.splitlines())) <= width


# --- its parts


def test_a_long_cell_is_whole_and_its_row_goes_on_below() -> None:
    columns = [Column("name", flexible=True), Column("n", right=True), Column("about", wraps=True)]
    rows = [["ab", "7", "one two three four five six seven"], ["p" * 40, "12", "x"]]
    lines = [line.plain for line in lay_out(columns, rows, 34)]
    assert lines == ["name   n  about", "ab     7  one two three four five", "          six seven", "p" * 40, "      12  x"]


def test_wide_letters_align() -> None:
    lines = [line.plain for line in lay_out([Column(""), Column("")], [["猫", "1"], ["cats", "2"]], 80, titles=False)]
    assert lines == ["猫    1", "cats  2"]


def test_what_would_move_the_cursor_is_escaped() -> None:
    assert printable("a\x1b[31m\nb\udcff 猫") == "a\\x1b[31m\\nb\\udcff 猫"
    assert_plain(shown(lambda display: display.show_prediction(PredictionResult("a\x1b[2J", error="no\r"))))


def test_letters_that_the_stream_lacks_stop_nothing() -> None:
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding="ascii")
    Display(stream).say("猫")
    stream.flush()
    assert buffer.getvalue() == b"\\u732b\n"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (count(1234567), "1,234,567"),
        (count(1, "epoch"), "1 epoch"),
        (count(2, "class"), "2 classes"),
        (duration(4.24), "4.2 s"),
        (duration(9.97), "10 s"),
        (duration(59.7), "1 min 00 s"),
        (duration(185), "3 min 05 s"),
        (duration(3725), "1 h 02 min"),
        (duration(3599.8), "1 h 00 min"),
        (flops(950), "950 FLOPs"),
        (flops(999_600), "1 MFLOPs"),
        (flops(2_340_000), "2.34 MFLOPs"),
        (loss_number(0.5), "0.5000"),
        (loss_number(float("nan")), "nan"),
        (loss_number(123456.7), "123,457"),
        (number(0.01234), "0.01234"),
        (number(-1234.56), "-1,235"),
        (number(1234.56, 6), "1,234.56"),
        (number(1e-9), "1.000e-09"),
        (number(0.0), "0"),
    ],
)
def test_numbers(made: str, expected: str) -> None:
    assert made == expected
