"""The main function of a program: data, model and optimiser, the loop over epochs, the test, and the file."""

import ast
import re

from goodfit.artefacts.run import START, Run
from goodfit.data.augment import _first_sides as draw_first_sides
from goodfit.data.loader import Loader, steps_per_epoch
from goodfit.eject.data import DataSection
from goodfit.eject.knowledge import Knowledge
from goodfit.eject.layout import expression, statements
from goodfit.eject.model import first_layer_lines, optimizer_lines, preparation_lines, training_mode_lines
from goodfit.eject.values import Code, Static, Value, lift, literal, name, parse
from goodfit.randomness import reseed
from goodfit.training.losses import CrossEntropy, class_weights
from goodfit.training.trainer import Trainer

__all__ = ["main_section", "step_lines"]


def step_lines(known: Knowledge) -> list[str]:
    """Return one step of training, from `stored` and `targets` to the new weights."""
    body, _ = known.run(
        Trainer.step, {"self": Static(known.session.trainer)}, wanted=("loss_sum", "weight_sum", "step"), drops_result=True
    )
    body = [node for node in body if not statements([node])[0].startswith("step = ")]
    return statements(body, 3)


def _seeding(known: Knowledge) -> list[str]:
    """Return the statements that seed the module's first weights."""
    is_own = known.session.plan.architecture.is_code
    out: list[ast.stmt] = []
    seed = Static(known.session.plan.config.train.seed, name("SEED"))
    known.specializer.inline(reseed, [seed, Static("init")], {"libraries": Static(is_own)}, out)
    lines = statements(out, 1)
    if len(lines) == 2:  # the number is used once
        return [lines[1].replace("(number)", f"({lines[0].partition(' = ')[2]})")]
    return lines


def main_section(known: Knowledge, run: Run, data: DataSection, step: list[str]) -> list[str]:
    """Return the function that does it all."""
    session = known.session
    config = session.plan.config
    validates = "val" in session.plan.dataset.splits
    lines = ["def main() -> None:", f'    """{_about_main(validates)}"""']
    if data.option:
        lines += [
            '    parser = argparse.ArgumentParser(description=__doc__.partition("\\n")[0])',
            *statements(ast.parse(f'parser.add_argument("--data", default={data.option!r}, help="{data.help}")').body, 1),
            "    root = parser.parse_args().data",
        ]
    lines.append(f"    torch.set_num_threads({config.train.threads})  # with another number the last bits differ")
    if session.device.type == "cuda" and config.train.deterministic:
        lines += [
            '    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")',
            "    torch.use_deterministic_algorithms(True)",
        ]
    lines += ["", *data.lines, "", *_model_lines(known, run, data.noun, step), "", *_epochs(known, data, step)]
    return lines


def _about_main(validates: bool) -> str:
    chosen = ", keep the weights with the lowest validation loss" if validates else ""
    return f"Train{chosen}, test and save."


def _model_lines(known: Knowledge, run: Run, noun: str, step: list[str]) -> list[str]:
    session = known.session
    architecture, config = session.plan.architecture, session.plan.config
    lines = ["    # The first weights are a function of the seed.", *_seeding(known)]
    if known.code_name:
        arguments = ", ".join(f"{key}={expression(literal(value))}" for key, value in architecture.arguments.items())
        lines.append(f"    model = {known.code_name.rpartition(':')[2]}({arguments})")
    else:
        lines.append("    model = build_model()")
    if session.plan.start:
        known.constant("START", str((run.path / START).absolute()), "the weights that training goes on from")
        lines.append("    model.load_state_dict(load_file(START))")
    lines += first_layer_lines(known, noun)
    lines += preparation_lines(known)
    if session.device.type != "cpu":
        lines.append("    model.to(DEVICE)")
    if session.trainer.channels_last and architecture.name != "mlp":
        lines.append("    model = model.to(memory_format=torch.channels_last)")
    lines += optimizer_lines(known)
    if session.state.schedule:
        lines.append("    scheduler = make_schedule(optimizer)")
    if "base_rates" in "\n".join(step):
        lines.append('    base_rates = [group["lr"] for group in optimizer.param_groups]')
    if session.state.scaler.is_enabled():
        lines.append(f'    scaler = torch.amp.GradScaler("{session.device.type}")')
    if session.state.ema:
        lines.append(f"    average = MovingAverage(model, {config.train.ema})")
    if isinstance(session.trainer.loss, CrossEntropy) and session.trainer.loss.class_weights is not None:
        lines += _class_weights(known)
    return lines


def _class_weights(known: Knowledge) -> list[str]:
    plan, session = known.session.plan, known.session
    known.specializer.objects[id(plan.dataset.train.targets)] = Code(name("train_targets"))
    given: dict[str, Value] = {
        "setting": Static(plan.config.train.class_weights),
        "dataset": Static(plan.dataset),
        "device": Static(session.device),
    }
    body, result = known.run(class_weights, given)
    return statements([*body, ast.Assign([name("class_weights")], lift(result))], 1)


def _epochs(known: Knowledge, data: DataSection, step: list[str]) -> list[str]:
    """Return the loop over epochs, and what comes after it."""
    session, noun = known.session, data.noun
    plan, patience = session.plan, session.plan.config.train.early_stopping
    validates = "val" in plan.dataset.splits
    part, label = ("val", "validation") if validates else ("test", "test")
    module = "average.module" if session.state.ema else "model"
    measure, form = ("accuracy", ".2%") if plan.dataset.classes else ("rmse", ".4g")
    known.specializer.attributes[id(session.trainer.loader), "count"] = Code(parse("len(train_targets)"))
    seed = known.specializer.attributes[id(session.trainer), "seed"]
    known.specializer.attributes[id(session.trainer.loader), "seed"] = seed
    given: dict[str, Value] = {"self": Static(session.trainer.loader), "epoch": Code(name("epoch"))}
    order = known.assigned(Loader._shuffle, "self._order", given)
    step = [*_taken(known, data), *_skips(known), *step]
    uses_step = re.search(r"(?<![.\w])step\b", "\n".join(step)) is not None
    lines = _side_lines(known)
    lines += ["    best_loss, best_weights = math.inf, {}"] if validates else []
    lines += ["    epochs_since_best = 0"] if patience and validates else []
    lines += ["    for epoch in range(EPOCHS):", *training_mode_lines(known), "        loss_sum = weight_sum = 0.0"]
    lines += [f"        order = {order}", *_batches(known, uses_step), *step]
    schedule = session.state.schedule
    if schedule and not schedule.counts_steps and not schedule.waits_for_loss:
        lines.append("        scheduler.step()")
    lines += [
        f"        loss, {measure} = evaluate({module}, {part}_{noun}, {part}_targets)",
        "        print(",
        '            f"epoch {epoch + 1}/{EPOCHS}: training loss {loss_sum / weight_sum:.4f}, "',
        f'            f"{label} loss {{loss:.4f}}, {measure} {{{measure}:{form}}}"',
        "        )",
    ]
    if schedule and schedule.waits_for_loss:
        lines.append("        scheduler.step(loss)")
    if validates:
        lines += [
            "        if loss < best_loss:",
            f"            best_loss, best_weights = loss, copy.deepcopy({module}.state_dict())",
        ]
        if patience:
            lines += [
                "            epochs_since_best = 0",
                "        else:",
                "            epochs_since_best += 1",
                f"        if epochs_since_best >= {patience}:",
                "            break",
            ]
    lines.append("")
    if validates:
        lines += [
            "    # The weights with the lowest validation loss are the ones that are tested, once, and saved.",
            f"    {module}.load_state_dict(best_weights)",
            f"    loss, {measure} = evaluate({module}, test_{noun}, test_targets)",
            f'    print(f"test loss {{loss:.4f}}, {measure} {{{measure}:{form}}}")',
        ]
    weights = f"{{key: tensor.contiguous() for key, tensor in {module}.state_dict().items()}}"
    return [*lines, f"    weights = {weights}", '    save_file(weights, "model.safetensors")']


def _side_lines(known: Knowledge) -> list[str]:
    """Return the statements that draw which pictures are flipped at first, where that alternates."""
    if known.session.trainer.augmentation.flip != "alternating":
        return []
    seed = known.specializer.attributes[id(known.session.trainer), "seed"]
    body, drawn = known.run(draw_first_sides, {"seed": seed, "count": Code(parse("len(train_targets)"))})
    start = statements([*body, ast.Assign([name("first_sides")], lift(drawn))], 1)
    return ["    # Half of the pictures are flipped in the first epoch, the others in the second, and so on.", *start]


def _taken(known: Knowledge, data: DataSection) -> list[str]:
    """Return the statements that take a batch."""
    place = "" if known.session.device.type == "cpu" else ".to(DEVICE)"
    if not data.parts:
        return [f"            stored, targets = train_{data.noun}[batch]{place}, train_targets[batch]{place}"]
    moved = [f"            stored, targets = stored{place}, targets{place}"] if place else []
    return ["            stored, targets = gather(train_set, train_rows[batch], SEED, epoch)", *moved]


def _skips(known: Knowledge) -> list[str]:
    """Return the statements that leave out the steps that the run left out."""
    skipped = sorted({line["step"] - 1 for line in known.metrics if line["event"] == "skip"})
    if not skipped:
        return []
    known.constant("SKIPPED", tuple(skipped), "steps that made the loss or the weights not finite")
    schedule = known.session.state.schedule
    counts = ["                scheduler.step()"] if schedule and schedule.counts_steps else []
    return ["            if step in SKIPPED:", *counts, "                continue"]


def _batches(known: Knowledge, uses_step: bool) -> list[str]:
    """Return the head of the loop over an epoch's batches."""
    plan = known.session.plan
    count, size = len(plan.dataset.train), plan.batch_size
    per_epoch = steps_per_epoch(count, size)
    known.constant("STEPS_PER_EPOCH", per_epoch)
    sizes = "BATCH_SIZE"
    lines = []
    if count > per_epoch * size:
        sizes = "sizes"
        lines = [
            "        # A last batch of a single example joins the one before.",
            "        sizes = [BATCH_SIZE] * (STEPS_PER_EPOCH - 1) + [BATCH_SIZE + 1]",
        ]
    if not uses_step:
        return [*lines, f"        for batch in order.split({sizes}):"]
    start = "epoch * STEPS_PER_EPOCH"
    return [*lines, f"        for step, batch in enumerate(order.split({sizes}), start={start}):"]
