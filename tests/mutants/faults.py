"""Faults planted in C: where a source can be changed, and how. Works on the text, as clang-format leaves
it: one statement begins a line, operators of two operands have spaces around them."""
import re

CALL = re.compile(r"\b([a-z_]\w*)\(")
NOT_CALLS = {"if", "for", "while", "switch", "return", "sizeof", "defined"}


def code_only(text):
    """The text with comments, strings, characters and preprocessor lines blanked, places kept."""
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])
    text = re.sub(r"/\*.*?\*/|//[^\n]*|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])+'", blank, text, flags=re.S)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", blank, text, flags=re.M)


def bodies(code):
    """Where functions are: from a brace in the first column to one."""
    return [(m.start(), m.end()) for m in re.finditer(r"^\{\n.*?^\}", code, flags=re.S | re.M)]


def closing(code, at):
    """The place of the bracket that closes the one at `at`."""
    depth = 0
    for i in range(at, len(code)):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if depth == 0:
            return i
    return len(code)


def arguments(code, opening):
    end, depth, parts, begin = closing(code, opening), 0, [], opening + 1
    for i in range(opening + 1, end):
        depth += (code[i] in "([{") - (code[i] in ")]}")
        if code[i] == "," and depth == 0:
            parts.append((begin, i))
            begin = i + 1
    return parts + [(begin, end)]


def swaps(pattern, to):
    def find(code, text):
        for m in re.finditer(pattern, code):
            yield m.start(), m.end(), to(m[0]) if callable(to) else to
    return find


COMPARE = {" < ": " <= ", " <= ": " < ", " > ": " >= ", " >= ": " > ", " == ": " != ", " != ": " == "}
ARITHMETIC = {" + ": " - ", " - ": " + ", " * ": " + ", " / ": " * ", " % ": " / ", " += ": " -= ", " -= ": " += ",
              " << ": " >> ", " >> ": " << ", " & ": " | ", " | ": " & ", "++": "--"}


def constants(code, text):
    for m in re.finditer(r"(?<![\w.])(\d+)(?=[uUlL]{0,3}(?![\w.]))", code):
        for to in (int(m[1]) + 1, int(m[1]) - 1):
            if to >= 0:
                yield m.start(1), m.end(1), str(to)


def reals(code, text):
    for m in re.finditer(r"(?<![\w.])\d+\.\d+(?=f?\b)", code):
        yield m.start(), m.end(), str(float(m[0]) + 1)


def statements(code, text):
    """Calls and assignments that stand alone: they go."""
    for m in re.finditer(r"^( +)(?!return|break|continue|goto|case|TRY|const|static|else|do|if|for|while)"
                         r"(?:\(void\))?([*(]*[a-z_][\w.>\[\]()*+ -]*?(?:\(| [-+*/|&^]?= |\+\+|--))", code, flags=re.M):
        end = code.find(";", m.start(2))
        part = code[m.start(2):end]
        if end < 0 or "{" in part or part.count("(") != part.count(")"):
            continue
        if re.match(r"[a-z_]\w*(?: \*| \w)", part) and " = " in part and not re.match(r"[\w.>\[\]-]+ =", part):
            continue  # a declaration
        yield m.start(2), end + 1, ";"


def checks(code, text):
    """TRY(f()): the failure is not seen; TRY(vae_fail(...)): the refusal is not made."""
    for m in re.finditer(r"\bTRY(?=\()", code):
        end = closing(code, m.end())
        inner = text[m.end() + 1:end]
        yield m.start(), end + 1, "(void)0" if inner.startswith("vae_fail") else "(void)(%s)" % inner


def conditions(code, text):
    for m in re.finditer(r"\b(if|while) (?=\()", code):
        end = closing(code, m.end())
        inner = text[m.end() + 1:end]
        yield m.end(), end + 1, "((%s) && 0)" % inner
        if m[1] == "if":
            yield m.end(), end + 1, "((%s) || 1)" % inner


def swapped(code, text):
    for m in CALL.finditer(code):
        if m[1] in NOT_CALLS:
            continue
        parts = arguments(code, m.end() - 1)
        for (a, b), (c, d) in zip(parts, parts[1:]):
            one, two = text[a:b].strip(), text[c:d].strip()
            if one and two and one != two:
                yield a, d, "%s, %s" % (two, one)


def indices(code, text):
    for m in re.finditer(r"(?<=[\w\])])\[(?=[^\]\[]+\])", code):
        end = closing(code, m.start())
        inner = text[m.end():end]
        if re.fullmatch(r"\d+|[A-Z_]+", inner) is None and not re.search(r"^ *(?:const |static )*\w+ \**\w+$",
                                                                         code[code.rfind("\n", 0, m.start()) + 1:m.start()]):
            yield m.end(), end, "%s + 1" % inner
            yield m.end(), end, "0"


OPERATORS = {
    "comparison": swaps(r" (?:<|<=|>|>=|==|!=) ", COMPARE.get),
    "arithmetic": swaps(r" (?:\+|-|\*|/|%|\+=|-=|<<|>>|&|\|) |\+\+", ARITHMETIC.get),
    "logic": swaps(r" (?:&&|\|\|) ", lambda op: " || " if "&" in op else " && "),
    "negation": swaps(r"!(?=[\w(])", ""),
    "sign": swaps(r"(?<=[(=,?:] )-(?=[\w(])|(?<=\()-(?=[\w(])|(?<=return )-(?=[\w(])", ""),
    "truth": swaps(r"\b(?:true|false)\b", lambda word: "false" if word == "true" else "true"),
    "constant": constants,
    "real": reals,
    "statement dropped": statements,
    "check dropped": checks,
    "condition": conditions,
    "arguments swapped": swapped,
    "index": indices,
}


def sites(text):
    """(operator, begin, end, replacement) of every fault that can be planted in functions."""
    code = code_only(text)
    inside = bodies(code)
    found = []
    for name, find in OPERATORS.items():
        for begin, end, to in find(code, text):
            if any(a < begin and end < b for a, b in inside) and text[begin:end] != to:
                found.append((name, begin, end, to))
    return found
