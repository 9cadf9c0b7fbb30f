"""A small partial evaluator: functions of the package, specialised to a run's own objects, become plain statements.

Names and attributes that lead to live objects are followed; what these decide is decided now, and what is left is code.
Calls of the package's own functions are written out in place, or kept as functions of the program.
"""

import ast
import builtins
import copy
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from enum import Enum
from inspect import Parameter
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor

from goodfit.eject.blocks import give_name, is_float32, run_block
from goodfit.eject.folding import (
    WHOLE,
    as_row,
    binary,
    compared,
    defaults,
    is_method_of_data,
    is_of_ours,
    is_whole,
    joined,
    prune,
    same,
    unary,
    with_short_end,
)
from goodfit.eject.signatures import annotation_text, joined_text, parameters_of, written_parameter
from goodfit.eject.sources import docstring_sentence, function_tree
from goodfit.eject.values import CannotWriteError, Code, Frame, Row, Static, Value, lift, name

__all__ = ["Function", "Rule", "Specializer"]

Rule = Callable[[Sequence[Value], Mapping[str, Value], list[ast.stmt]], Value]

PURE = (len, min, max, round, int, float, bool, abs, divmod, str, sum, tuple, list, isinstance, any, all, sorted, getattr, dict)


@dataclass
class Function:
    """A function of the program: its parameters and what it returns, as text, a sentence about it, and its body."""

    parameters: Sequence[str]
    returns: str
    about: str
    body: list[ast.stmt]
    needs: Sequence[str] = ()  # what it is given first: variables of the main function


@dataclass
class Specializer:
    """Specialises functions to what is known.

    `objects` says how the program calls a live object, by its identity, `attributes` what is known of an object's attribute,
    `facts` of a piece of code ("stored.dtype"), `rules` what a call of a function comes to, and `kept` which functions stay
    functions, with the parameters that are the same in every call.
    """

    device: torch.device
    objects: dict[int, Value] = field(default_factory=dict)
    attributes: dict[tuple[int, str], Value] = field(default_factory=dict)
    facts: dict[str, Value] = field(default_factory=dict)
    rules: dict[Any, Rule] = field(default_factory=dict)
    kept: dict[Any, tuple[str, dict[str, Value]]] = field(default_factory=dict)
    repeated: dict[str, Value] = field(default_factory=dict)  # lists of one value, by their names in the program
    float32: set[str] = field(default_factory=set)  # expressions that are that already
    functions: dict[str, Function] = field(default_factory=dict)  # of the program, each behind those that it calls
    about: dict[str, str] = field(default_factory=dict)  # what is said of a function, if not its docstring's first sentence
    constants: dict[str, ModuleType] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)  # of the main function, with their types

    # Calls of functions that are specialised

    def inline(self, function: Any, arguments: Sequence[Value], keywords: Mapping[str, Value], out: list[ast.stmt]) -> Value:
        """Write the body of a function to `out` and return what it gives."""
        function = inspect.unwrap(function)
        tree = function_tree(function)
        frame = Frame(self._bind(function, arguments, keywords), function.__globals__)
        frame.names = {**self._cells(function), **frame.names}
        uses = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))
        for title, value in frame.names.items():
            if isinstance(value, Code) and uses[title] > 1:
                frame.names[title] = give_name(self, title, value, out)
        given = run_block(self, tree.body, frame, out)
        return given or Static(None)

    def keep(self, function: Any, title: str = "", known: Mapping[str, Value] | None = None) -> str:
        """Make a function part of the program, without the parameters that are `known`, and return its name there."""
        title, known = title or function.__name__.lstrip("_"), dict(known or {})
        if title in self.functions:
            return title
        tree = function_tree(inspect.unwrap(function))
        frame = Frame({**self._cells(function)}, function.__globals__, keeps_returns=True)
        written, frame.names = [], frame.names | known
        for parameter, annotation in parameters_of(tree):
            plain = parameter.lstrip("*").partition(" ")[0]
            if plain not in known:
                frame.names[plain] = Code(name(plain))
                written.append(written_parameter(parameter, annotation, function))
        self.functions[title] = Function((), "", "", [])  # before its body, in which it may be called
        body: list[ast.stmt] = []
        run_block(self, tree.body, frame, body)
        del self.functions[title]  # so that it stands behind what it calls
        body, about = with_short_end(prune(body)), self.about.get(title) or docstring_sentence(function)
        loads = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
        needs = [variable for variable in self.variables if variable in loads and variable not in frame.names]
        written = [f"{variable}: {self.variables[variable]}" for variable in needs] + written
        returns = annotation_text(ast.unparse(tree.returns)) if tree.returns else "Any"
        self.functions[title] = Function(written, returns, about, body, needs)
        return title

    def _cells(self, function: Any) -> dict[str, Value]:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        return {title: self.attributes.get((id(function), title), Static(cell.cell_contents)) for title, cell in cells}

    def _bind(self, function: Any, arguments: Sequence[Value], keywords: Mapping[str, Value]) -> dict[str, Value]:
        bound = inspect.signature(function).bind(*arguments, **keywords)
        variable = {
            parameter.name
            for parameter in inspect.signature(function).parameters.values()
            if parameter.kind is parameter.VAR_POSITIONAL
        }
        given = {key: Row(value) if key in variable else value for key, value in bound.arguments.items()}
        bound.apply_defaults()
        return {key: given.get(key, Static(value)) for key, value in bound.arguments.items()}

    # Expressions

    def value(self, node: ast.expr, frame: Frame, out: list[ast.stmt]) -> Value:  # noqa: C901  a case for each kind
        """Return what is known of an expression; statements that have to go before it are written to `out`."""
        match node:
            case ast.Constant(value):
                return Static(value)
            case ast.Name(title):
                return self._name(title, frame)
            case ast.Attribute(owner, attribute):
                return self._attribute(self.value(owner, frame, out), attribute)
            case ast.Call():
                return self._call(node, frame, out)
            case ast.Subscript():
                return self._subscript(node, frame, out)
            case ast.Tuple(elements) | ast.List(elements):
                items = self._spread(elements, frame, out)
                return joined(items, isinstance(node, ast.List))
            case ast.BinOp(left, operator, right):
                return binary(self.value(left, frame, out), operator, self.value(right, frame, out))
            case ast.UnaryOp(operator, operand):
                return unary(operator, self.value(operand, frame, out))
            case ast.BoolOp(operator, values):
                return self._boolean(operator, values, frame, out)
            case ast.Compare(left, [operator], [right]):
                return compared(self.value(left, frame, out), operator, self.value(right, frame, out))
            case ast.Dict(keys, values) if all(keys):
                return self._dict(
                    [self.value(key, frame, out) for key in keys if key], [self.value(each, frame, out) for each in values]
                )
            case ast.JoinedStr():
                return joined_text(self._rewritten(node, frame, out))
            case ast.IfExp(test, body, otherwise):
                known = self.value(test, frame, out)
                if isinstance(known, Static):
                    return self.value(body if known.value else otherwise, frame, out)
                return Code(ast.IfExp(lift(known), *(lift(self.value(side, frame, out)) for side in (body, otherwise))))
        return self._rewritten(node, frame, out)

    def _dict(self, keys: Sequence[Value], values: Sequence[Value]) -> Value:
        known = [each.value for each in values if isinstance(each, Static) and each.node is None]
        if len(known) == len(values):
            return Static({key.value: value for key, value in zip(keys, known, strict=True) if isinstance(key, Static)})
        return Code(ast.Dict([lift(key) for key in keys], [lift(value) for value in values]))

    def _rewritten(self, node: ast.expr, frame: Frame, out: list[ast.stmt]) -> Value:
        """Specialise what is inside a comprehension, a slice and the like, whose own names stay."""
        inner = Frame(dict(frame.names), frame.scope)
        for loop in getattr(node, "generators", ()):
            inner.names |= {each.id: Code(name(each.id)) for each in ast.walk(loop.target) if isinstance(each, ast.Name)}
        if isinstance(node, ast.Lambda):
            inner.names |= {each.arg: Code(name(each.arg)) for each in node.args.args}
        changed = copy.copy(node)
        for key, child in ast.iter_fields(node):
            if isinstance(child, list):
                setattr(changed, key, [self._inside(each, inner, out) for each in child])
            elif isinstance(child, ast.expr):
                setattr(changed, key, self._inside(child, inner, out))
        return Code(changed)

    def _inside(self, child: Any, frame: Frame, out: list[ast.stmt]) -> Any:
        if isinstance(child, ast.comprehension):
            iterable, tests = self._inside(child.iter, frame, out), [self._inside(test, frame, out) for test in child.ifs]
            return ast.comprehension(child.target, iterable, tests, 0)
        return lift(self.value(child, frame, out)) if isinstance(child, ast.expr) else child

    def _name(self, title: str, frame: Frame) -> Value:
        if title in frame.names:
            return frame.names[title]
        found = frame.scope[title] if title in frame.scope else vars(builtins)[title]
        return self._live(found, name(title), frame.scope)

    def _live(self, found: Any, node: ast.expr | None, scope: Mapping[str, Any] | None = None) -> Value:
        """Return an object as the program knows it."""
        if id(found) in self.objects:
            return self.objects[id(found)]
        is_plain = isinstance(found, bool | int | float | str | tuple | list | dict | None) and not isinstance(found, Enum)
        if not is_plain:
            return Static(found, node)
        if scope and isinstance(node, ast.Name) and isinstance(found, int | float | list | dict):
            module = self.constants.setdefault(node.id, sys.modules[scope["__name__"]])
            if module.__name__ != scope["__name__"]:
                raise CannotWriteError(f"{node.id} of two modules")
            return Static(found, node)
        return Static(found)

    def _attribute(self, owner: Value, attribute: str) -> Value:
        if isinstance(owner, Static):
            known = self.attributes.get((id(owner.value), attribute))
            if known is not None:
                return known
            found = getattr(owner.value, attribute)
            if isinstance(owner.value, str) and callable(found):
                return Static(found, ast.Attribute(lift(owner), attribute, ast.Load()))
            if isinstance(owner.value, ModuleType) and owner.node and isinstance(found, float):
                return Static(found, ast.Attribute(owner.node, attribute, ast.Load()))
            is_thing = owner.node is not None and not isinstance(found, bool | int | float | str | tuple)
            return self._live(found, ast.Attribute(lift(owner), attribute, ast.Load()) if is_thing else None)
        node = ast.Attribute(lift(owner), attribute, ast.Load())
        fact = self.facts.get(ast.unparse(node))
        if fact is not None:
            return fact
        return Static(self.device) if attribute == "device" else Code(node)

    def _subscript(self, node: ast.Subscript, frame: Frame, out: list[ast.stmt]) -> Value:
        owner, index = self.value(node.value, frame, out), self.value(node.slice, frame, out)
        if isinstance(index, Static) and index.value is WHOLE:
            return owner
        if isinstance(index, Row) and all(is_whole(item) for item in index.items):
            return owner
        if isinstance(index, Static) and isinstance(owner, Static) and not isinstance(owner.value, Tensor):
            found = owner.value[index.value]
            is_ours = not isinstance(found, type)  # what torch has needs no table of ours
            written = ast.Subscript(lift(owner), lift(index), ast.Load()) if owner.node and is_ours else None
            return found if isinstance(found, Value) else self._live(found, written)
        if isinstance(index, Static) and isinstance(owner, Row) and isinstance(index.value, int):
            return owner.items[index.value]
        made = ast.Subscript(lift(owner), lift(index), ast.Load())
        return self.facts.get(ast.unparse(made), Code(made))

    def _boolean(self, operator: ast.boolop, values: Sequence[ast.expr], frame: Frame, out: list[ast.stmt]) -> Value:
        ends_with = isinstance(operator, ast.Or)
        left: list[ast.expr] = []
        last: Value = Static(not ends_with)
        for each in values:
            last = self.value(each, frame, out)
            if isinstance(last, Static):
                if bool(last.value) is ends_with:
                    is_settled = all(isinstance(each, ast.Compare) for each in left)
                    return last if is_settled else Code(ast.BoolOp(operator, [*left, lift(last)]))
                continue
            left.append(lift(last))
        if not left:
            return last
        return Code(left[0] if len(left) == 1 else ast.BoolOp(operator, left))

    def _spread(self, nodes: Iterable[ast.expr], frame: Frame, out: list[ast.stmt]) -> list[Value]:
        items: list[Value] = []
        for node in nodes:
            if not isinstance(node, ast.Starred):
                items.append(self.value(node, frame, out))
                continue
            given = self.value(node.value, frame, out)
            if isinstance(given, Static):
                given = as_row(given)
            items += given.items if isinstance(given, Row) else [Code(ast.Starred(lift(given), ast.Load()))]
        return items

    # Calls

    def _call(self, node: ast.Call, frame: Frame, out: list[ast.stmt]) -> Value:
        function = self.value(node.func, frame, out)
        arguments = self._spread(node.args, frame, out)
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            given = self.value(keyword.value, frame, out)
            if keyword.arg:
                keywords[keyword.arg] = given
            else:
                assert isinstance(given, Static)
                keywords |= {key: Static(each) for key, each in given.value.items()}
        return self.call(function, arguments, keywords, out)

    def call(self, function: Value, arguments: Sequence[Value], keywords: dict[str, Value], out: list[ast.stmt]) -> Value:
        """Return what a call gives, now or in the program."""
        if not isinstance(function, Static):
            return self._method(lift(function), arguments, keywords)
        called = function.value
        if is_of_ours(called):
            called = called.__call__
        plain = called.__func__ if isinstance(called, MethodType) else called
        can_be_listed = isinstance(plain, FunctionType | type) or hasattr(plain, "cache_info")
        given = [Static(called.__self__), *arguments] if isinstance(called, MethodType) else arguments
        if can_be_listed and plain in self.rules:
            return self.rules[plain](given, keywords, out)
        if can_be_listed and plain in self.kept:
            return self._call_kept(plain, given, keywords)
        if isinstance(plain, FunctionType) and plain.__module__.startswith("goodfit."):
            return self.inline(plain, given, keywords, out)
        return self._call_foreign(function, called, arguments, keywords)

    def _call_kept(self, function: Any, arguments: Sequence[Value], keywords: Mapping[str, Value]) -> Value:
        title, known = self.kept[function]
        parameters = inspect.signature(function).parameters
        title = self.keep(function, title, known)
        places = list(parameters)
        given = [argument for place, argument in enumerate(arguments) if place >= len(places) or places[place] not in known]
        needed = [key for key in keywords if key not in known and parameters[key].default in (Parameter.empty, None)]
        given += [keywords[key] for key in places if key in needed]
        left = [
            ast.keyword(key, lift(value))
            for key, value in keywords.items()
            if key not in known
            and key not in needed
            and not (isinstance(value, Static) and same(value.value, parameters[key].default))
        ]
        needs = [name(variable) for variable in self.functions[title].needs]
        return Code(ast.Call(name(title), [*needs, *map(lift, given)], left))

    def _call_foreign(self, function: Static, called: Any, arguments: Sequence[Value], keywords: dict[str, Value]) -> Value:
        if called is isinstance and isinstance(arguments[0], Code):
            fact = self.facts.get(ast.unparse(ast.Call(lift(function), [lift(argument) for argument in arguments], [])))
            if fact is not None:
                return fact
            kind = arguments[1].value if isinstance(arguments[1], Static) else None
            if kind in (Tensor, Mapping, Sequence):  # what only the program knows is a tensor, or a module
                return Static(kind is Tensor)
        if called is nullcontext:
            return Static(nullcontext())
        if called is list and arguments and isinstance(arguments[0], Row):
            return Row(arguments[0].items, is_list=True)
        if called is zip and all(isinstance(each, Row) for each in arguments):
            rows = zip(*(each.items for each in arguments if isinstance(each, Row)), strict=True)
            return Row(tuple(Row(tuple(row)) for row in rows))
        values = [*arguments, *keywords.values()]
        known = [each for each in values if isinstance(each, Static)]
        if len(known) == len(values) and (any(called is each for each in PURE) or is_method_of_data(called)):
            result = called(
                *(each.value for each in known[: len(arguments)]),
                **dict(zip(keywords, (each.value for each in known[len(arguments) :]), strict=True)),
            )
            same_value = [each for each in known if each.node and type(each.value) is type(result) and each.value == result]
            if called in (min, max) and same_value:
                return same_value[0]
            is_named = any(each.node for each in known) and called in (str, round)
            return Static(result, ast.Call(lift(function), [lift(each) for each in known], []) if is_named else None)
        usual = defaults(called)
        given = [
            ast.keyword(key, lift(value))
            for key, value in keywords.items()
            if not (isinstance(value, Static) and value.node is None and key in usual and same(value.value, usual[key]))
            and not (key == "device" and self._is_here(value))
        ]
        made = ast.Call(lift(function), [lift(argument) for argument in arguments], given)
        return Code(made)

    def _method(self, function: ast.expr, arguments: Sequence[Value], keywords: dict[str, Value]) -> Value:
        """Return a call of something that only the program knows."""
        if isinstance(function, ast.Attribute):
            if function.attr == "to":
                arguments = [argument for argument in arguments if not self._is_here(argument)]
                if not arguments and not keywords:
                    return Code(function.value)
            if function.attr == "float" and (ast.unparse(function.value) in self.float32 or is_float32(self, function.value)):
                return Code(function.value)
            if function.attr == "split" and arguments and isinstance(arguments[0], Row) and len(arguments[0].items) == 1:
                return Row((Code(function.value),))
        given = [ast.keyword(key, lift(value)) for key, value in keywords.items()]
        made = ast.Call(function, [lift(argument) for argument in arguments], given)
        return self.facts.get(ast.unparse(made), Code(made))

    def _is_here(self, value: Value) -> bool:
        return isinstance(value, Static) and isinstance(value.value, torch.device) and self.device.type == "cpu"
