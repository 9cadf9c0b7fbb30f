"""Syntax trees as formatted text: what `ast.unparse` does, with comments, the usual quotes, and lines that are broken well."""

import ast
import textwrap
from collections.abc import Sequence
from itertools import pairwise

__all__ = ["WIDTH", "docstring", "expression", "statements"]

WIDTH = 100
OPERATORS = {
    ast.Add: ("+", 10),
    ast.Sub: ("-", 10),
    ast.Mult: ("*", 11),
    ast.Div: ("/", 11),
    ast.FloorDiv: ("//", 11),
    ast.Mod: ("%", 11),
    ast.MatMult: ("@", 11),
    ast.Pow: ("**", 13),
    ast.LShift: ("<<", 9),
    ast.RShift: (">>", 9),
    ast.BitAnd: ("&", 8),
    ast.BitXor: ("^", 7),
    ast.BitOr: ("|", 6),
    ast.USub: ("-", 12),
    ast.UAdd: ("+", 12),
    ast.Invert: ("~", 12),
    ast.Not: ("not ", 4),
    ast.And: ("and", 3),
    ast.Or: ("or", 2),
}
COMPARISONS = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
}
COMPARISON, CONDITIONAL = 5, 1


def expression(node: ast.expr, level: int = 0) -> str:
    """Return an expression on one line, in parentheses where it stands in one that binds more tightly than `level`."""
    text, own = _expression(node)
    return f"({text})" if own < level else text


def _expression(node: ast.expr) -> tuple[str, int]:  # noqa: C901  a case for each kind
    """Return the text of an expression and how tightly it binds."""
    match node:
        case ast.Constant(value):
            return _constant(value), 20
        case ast.Name(name):
            return name, 20
        case ast.Attribute(value, name):
            return f"{expression(value, 20)}.{name}", 20
        case ast.Subscript(value, index):
            return f"{expression(value, 20)}[{_bare(index)}]", 20
        case ast.Slice(lower, upper, step):
            return _slice(lower, upper, step), 0
        case ast.Call():
            return f"{expression(node.func, 20)}({_arguments(node)})", 20
        case ast.Tuple(elements) | ast.List(elements):
            inside = ", ".join(expression(each) for each in elements)
            if isinstance(node, ast.List):
                return f"[{inside}]", 20
            return f"({inside}{',' * (len(elements) == 1)})", 20
        case ast.Dict(keys, values):
            pairs = [
                f"{expression(key)}: {expression(value)}" if key else f"**{expression(value, 6)}"
                for key, value in zip(keys, values, strict=True)
            ]
            return "{" + ", ".join(pairs) + "}", 20
        case ast.BinOp(left, operator, right):
            return _binary(left, operator, right)
        case ast.UnaryOp(operator, operand):
            sign, own = OPERATORS[type(operator)]
            return f"{sign}{expression(operand, own)}", own
        case ast.BoolOp(operator, values):
            sign, own = OPERATORS[type(operator)]
            inner = 4 if isinstance(operator, ast.Or) else own + 1  # "and" inside "or" has parentheses
            return f" {sign} ".join(expression(each, inner) for each in values), own
        case ast.Compare(left, operators, others):
            terms = [
                f" {COMPARISONS[type(operator)]} {expression(other, 6)}"
                for operator, other in zip(operators, others, strict=True)
            ]
            return expression(left, 6) + "".join(terms), COMPARISON
        case ast.IfExp(test, body, otherwise):
            return f"{expression(body, 2)} if {expression(test, 2)} else {expression(otherwise, 1)}", CONDITIONAL
        case ast.Starred(value):
            return f"*{expression(value, 6)}", 0
        case ast.ListComp() | ast.GeneratorExp() | ast.SetComp() | ast.DictComp():
            return _comprehension(node), 20
        case ast.JoinedStr():
            text = ast.unparse(node)
            return (f'f"{text[2:-1]}"' if '"' not in text else text), 20
        case ast.Lambda(arguments, body):
            given = ast.unparse(arguments)
            return f"lambda{' ' * bool(given)}{given}: {expression(body, 1)}", 0
    return ast.unparse(node), 0


def _constant(value: object) -> str:
    text = "..." if value is ... else repr(value)
    return f'"{text[1:-1]}"' if isinstance(value, str) and '"' not in text else text


def _bare(node: ast.expr) -> str:
    """Return a tuple without its parentheses."""
    is_bare = isinstance(node, ast.Tuple) and len(node.elts) > 1
    return expression(node)[1:-1] if is_bare else expression(node)


def _slice(lower: ast.expr | None, upper: ast.expr | None, step: ast.expr | None) -> str:
    ends = [expression(end) if end else "" for end in (lower, upper)]
    simple = all(
        end is None or isinstance(end, ast.Name | ast.Constant | ast.UnaryOp | ast.Attribute) for end in (lower, upper, step)
    )
    text = (":" if simple else " : ").join(ends).strip()
    if not step:
        return text
    return f"{text}{':' if simple else ' : ' if upper else ': '}{expression(step)}"


def _arguments(call: ast.Call) -> str:
    if len(call.args) == 1 and not call.keywords and isinstance(call.args[0], ast.GeneratorExp):
        return expression(call.args[0])[1:-1]
    given = [expression(each) for each in call.args]
    given += [
        f"{keyword.arg}={expression(keyword.value)}" if keyword.arg else f"**{expression(keyword.value)}"
        for keyword in call.keywords
    ]
    return ", ".join(given)


def _binary(left: ast.expr, operator: ast.operator, right: ast.expr) -> tuple[str, int]:
    sign, own = OPERATORS[type(operator)]
    if isinstance(operator, ast.Pow):
        ends = [expression(left, own + 1), expression(right, own)]
        is_simple = all(isinstance(each, ast.Name | ast.Constant | ast.Attribute) for each in (left, right))
        return (sign if is_simple else f" {sign} ").join(ends), own
    return f"{expression(left, own)} {sign} {expression(right, own + 1)}", own


def _comprehension(node: ast.ListComp | ast.GeneratorExp | ast.SetComp | ast.DictComp) -> str:
    parts = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
    element = ": ".join(map(expression, parts))
    for loop in node.generators:
        element += f" for {_bare(loop.target)} in {expression(loop.iter, 2)}"
        element += "".join(f" if {expression(test, 2)}" for test in loop.ifs)
    first, last = {ast.ListComp: ("[", "]"), ast.GeneratorExp: ("(", ")")}.get(type(node), ("{", "}"))
    return f"{first}{element}{last}"


def statements(body: Sequence[ast.stmt], depth: int = 0) -> list[str]:
    """Return statements as lines, indented `depth` levels; a statement's `before` and `after` are its comments."""
    lines: list[str] = []
    for node in body:
        indent = " " * 4 * depth
        lines += _comments(getattr(node, "before", ()), indent)
        head, inner = _statement(node)
        after = getattr(node, "after", "")
        if after and len(indent + head + after) + 2 > WIDTH:
            lines.append(indent + after)
            after = ""
        broken = _break(head, len(indent))
        lines += [indent + line for line in broken]
        lines[-1] += f"  {after}" if after else ""
        lines += statements(inner, depth + 1)
        if isinstance(node, ast.If) and len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
            first, *rest = statements(node.orelse, depth)
            lines += [f"{indent}el{first.lstrip()}", *rest]
        elif isinstance(node, ast.If) and node.orelse:
            lines += [f"{indent}else:", *statements(node.orelse, depth + 1)]
    return lines


def _comments(comments: Sequence[str], indent: str) -> list[str]:
    """Return comments as lines, filled anew where one of them is too long."""
    if all(len(indent + comment) <= WIDTH for comment in comments):
        return [f"{indent}{comment}" for comment in comments]
    text = " ".join(comment.removeprefix("#").strip() for comment in comments)
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent) - 2)]


def docstring(text: str, indent: str = "    ") -> list[str]:
    """Return a text as a docstring, its paragraphs filled anew, and nothing for none."""
    if not text:
        return []
    if len(indent) + len(text) + 6 <= WIDTH and "\n" not in text:
        return [f'{indent}"""{text}"""']
    paragraphs = [textwrap.wrap(" ".join(each.split()), WIDTH - len(indent) - 6) for each in text.split("\n\n")]
    lines = [line for paragraph in paragraphs for line in [*paragraph, ""]][:-1]
    return [f'{indent}"""{lines[0]}', *(f"{indent}{line}".rstrip() for line in lines[1:]), f'{indent}"""']


def _statement(node: ast.stmt) -> tuple[str, Sequence[ast.stmt]]:
    """Return a statement's first line, unbroken, and the statements inside it."""
    match node:
        case ast.Assign(targets, value):
            given = _bare(value) if isinstance(targets[0], ast.Tuple) else expression(value)
            return " = ".join([*map(_bare, targets), given]), ()
        case ast.AugAssign(target, operator, value):
            return f"{expression(target)} {OPERATORS[type(operator)][0]}= {_bare(value)}", ()
        case ast.Return(value):
            return f"return {_bare(value)}" if value else "return", ()
        case ast.AnnAssign(target, annotation, value) if value:
            return f"{expression(target)}: {expression(annotation)} = {_bare(value)}", ()
        case ast.Expr(value):
            return expression(value), ()
        case ast.For(target, iterable, body):
            return f"for {_bare(target)} in {expression(iterable)}:", body
        case ast.While(test, body):
            return f"while {expression(test)}:", body
        case ast.If(test, body):
            return f"if {expression(test)}:", body
        case ast.With(items, body):
            return f"with {', '.join(expression(item.context_expr) for item in items)}:", body
    return ast.unparse(node), ()


def _break(line: str, indent: int, is_inside: bool = False) -> list[str]:
    """Break a line that is too long at its brackets, the last ones first; inside of others, at its operators before."""
    if indent + len(line) + is_inside <= WIDTH:  # a part is followed by a comma
        return [line]
    if is_inside and len(_at_operators(line)) > 1:
        return [each for part in _at_operators(line) for each in _break(part, indent)]
    start, _, right = line.partition(" = ")
    is_assignment = bool(right) and not _outside(start, "(") and start.count("(") == start.count(")")
    if is_assignment and len(_at_operators(right)) > 1:
        return [f"{start} = (", *(f"    {each}" for each in _at_operators(right)), ")"]
    pairs = [pair for pair in _brackets(line) if pair[1] - pair[0] > 1 and _depth(line, pair[0]) == 0]
    for first, last in reversed(pairs):
        if is_assignment and "." in line[last:] and indent + 4 + len(right) <= WIDTH:
            return [f"{start} = (", f"    {right}", ")"]  # a chain of calls that ends with one of nothing
        head, body, tail = line[: first + 1], line[first + 1 : last], line[last:]
        if indent + len(head) > WIDTH or indent + len(tail) > WIDTH or (head.endswith("[") and (first, last) != pairs[0]):
            continue
        is_display = len(head) < 2 or not (head[-2].isalnum() or head[-2] in "_)]")  # of a tuple, list or dict
        if indent + 4 + len(body) <= WIDTH and not (is_display and _outside(body, ", ")):
            return [head, f"    {body}", tail]
        inside: list[str] = []
        parts, comma = _parts(body)
        for part in parts:
            broken = _break(part, indent + 4, is_inside=True)
            inside += [f"    {each}" for each in broken]
            inside[-1] += comma
        return [head, *inside, tail]
    if is_assignment and indent + 4 + len(right) <= WIDTH:
        return [f"{start} = (", f"    {right}", ")"]
    return [line]


def _brackets(line: str) -> list[tuple[int, int]]:
    """Return the places of all matching brackets outside text."""
    open_places, pairs, quote = [], [], ""
    for place, character in enumerate(line):
        if quote:
            quote = "" if character == quote and line[place - 1] != "\\" else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            open_places.append(place)
        elif character in ")]}":
            pairs.append((open_places.pop(), place))
    return sorted(pairs)


def _depth(line: str, place: int) -> int:
    return sum(first < place < last for first, last in _brackets(line))


def _parts(body: str) -> tuple[list[str], str]:
    """Return what stands between commas, or the clauses of a comprehension, and what goes behind each."""
    pairs = _brackets(body)
    outside = [place for place in range(len(body)) if not any(first < place < last for first, last in pairs)]
    commas = [place for place in outside if body[place : place + 2] == ", "]
    loops = [place for place in outside if body[place : place + 5] == " for " or body[place : place + 4] == " if "]
    if commas and not (loops and commas[0] > loops[0]):
        ends = [*commas, len(body)]
        return [body[start:stop] for start, stop in zip([0, *(comma + 2 for comma in commas)], ends, strict=True)], ","
    cuts = [0, *loops, len(body)]
    return [body[start:stop].strip() for start, stop in pairwise(cuts)], "" if loops else ","


def _at_operators(body: str) -> list[str]:
    """Return a sum, or what is joined by another operator, in its parts: those of the operator that binds least."""
    for signs in ((" or ",), (" and ",), (" + ", " - "), (" * ", " / ", " // ", " % ")):
        cuts = sorted(place for sign in signs for place in _outside(body, sign))
        if cuts:
            ends = [*cuts, len(body)]
            return [body[: cuts[0]], *(body[start + 1 : stop] for start, stop in zip(cuts, ends[1:], strict=False))]
    return [body]


def _outside(text: str, sign: str) -> list[int]:
    """Return the places of a sign that are inside no brackets."""
    pairs = _brackets(text)
    places = [place for place in range(len(text)) if text.startswith(sign, place)]
    return [place for place in places if not any(first < place < last for first, last in pairs)]
