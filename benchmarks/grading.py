r"""Measure which answers the grader accepts: ``python benchmarks/grading.py DATA_DIR``.

DATA_DIR holds benchmarks as NAME.jsonl, with the columns that they have on the hub. Every gold answer is graded against
itself, against harmless rewrites (spaces, ``\dfrac``, ``\left``, zeros, units) and against perturbations (a digit, a
sign, an element, another problem's answer). Gold answers that are numbers are graded with a unit and in scientific
notation too, on either side, against the number, another unit and another number. Then the speed is measured, and the
effect of a gold answer that hangs on other answers. Prints one JSON line for each set and check, with every exception.
"""

import argparse
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from arbitrage.datasets.files import read_file
from arbitrage.datasets.hub import NAMED
from arbitrage.grading import Grader, Verdict
from arbitrage.grading.answers import read
from arbitrage.grading.latex import canonical, number
from arbitrage.grading.types import Formula, Group

SETS = ("math500", "olympiadbench", "gsm8k", "aime24", "amc23")
UNITS = (
    ("cm", r"\text{ centimeters}"),
    ("bricks", r"\text{ bricks}"),
    ("m/s", r"\text{ m s}^{-1}"),
    ("USD", r"\text{ dollars}"),
    ("square feet", r"\text{ ft}^2"),
    ("kg", r"\,\mathrm{kg}"),
    ("red apples", r"\text{ red apples}"),
    ("hours", r"\text{ h}"),
    ("km/h", r"\text{ kilometers per hour}"),
    ("students", r"\text{ students}"),
)
"""Spellings of units: plain, and in LaTeX."""
HANGS = "9^{9^{9^{9^{9}}}}!"
OPENING = re.compile(
    r"(?:\s|\$|\\left|\\quad|\\\{|[(\[{]|\\begin\{[a-z]*matrix\}|\\?[A-Za-z_]+(?:\([a-z]\))?\s*=(?!=))*"
)


def rewrites(gold: str) -> Iterator[tuple[str, str]]:
    """Other spellings of an answer, each behind the name of the change."""
    yield "spaces", " " + re.sub(r"([=+]|,(?!\d{3}))", r" \1 ", gold).replace(" ", "  ") + " "
    fewer = re.sub(r"(?<![A-Za-z\d]) +| +(?=[-+=,)\]}])", "", gold)
    if fewer != gold:
        yield "fewer spaces", fewer
    if "frac" in gold:
        yield "dfrac", re.sub(r"\\[dt]?frac", r"\\dfrac", gold)
        yield "tfrac", re.sub(r"\\[dt]?frac", r"\\tfrac", gold)
    if re.search(r"[(\[]|\\\{", gold):
        bare = re.sub(r"\\left|\\right", "", gold)
        yield "no left", bare
        yield "left", re.sub(r"(\\\}|[)\]])", r"\\right\1", re.sub(r"(\\\{|[(\[])", r"\\left\1", bare))
    if re.fullmatch(r"-?\d*\.\d+", gold):
        yield "zeros", gold + "00"
    if re.fullmatch(r"-?\d+", gold):
        yield "zeros", gold + ".00"
        yield "dollars", rf"\${gold}"
    answer = read(gold)
    if isinstance(answer, Formula) and not answer.name and not re.search(r"\\text|\\mbox|\\\$|[=<>%]|circ", gold):
        yield "unit", gold.rstrip("$. ") + r" \text{ cm}^2"
    if re.search(r".\s*\\(?:text|mbox)\{ ?[a-z]+\}(\^2)?$", gold):
        yield "no unit", re.sub(r"\s*\\(?:text|mbox)\{ ?[a-z]+\}(\^2)?$", "", gold)
    if "circ" in gold:
        yield "no degrees", re.sub(r"\^\{?\\circ\}?", "", gold)


def quantities(gold: str, rng: random.Random) -> Iterator[tuple[str, str, str, Verdict]]:
    """For a gold answer that is a number: the change, an answer, a gold answer, and the verdict to expect."""
    exact = number(canonical(gold))
    if exact is None:
        return
    (plain, latex), (other, _) = rng.sample(UNITS, 2)
    for done, spelling in (("N (unit)", f"{gold} ({plain})"), ("N unit", f"{gold} {plain}"), ("N latex", gold + latex)):
        yield done, spelling, gold, Verdict.CORRECT
        yield done, gold, spelling, Verdict.CORRECT
        yield f"{done}, spelt otherwise", f"{gold}{latex}", spelling, Verdict.CORRECT
        yield f"{done}, another number", str(exact + 1), spelling, Verdict.WRONG
        yield f"{done}, another unit", f"{gold} {other}", spelling, Verdict.WRONG
    written = Decimal(exact.numerator) / Decimal(exact.denominator)
    if Fraction(written) == exact != 0:
        power = written.adjusted()
        factor = written.scaleb(-power).normalize()
        for spelling in (rf"{factor:f} \times 10^{{{power}}}", f"{factor:f}e{power}", f"{factor:f} × 10^{power}"):
            yield "a × 10^n", spelling, gold, Verdict.CORRECT
            yield "a × 10^n", gold, spelling, Verdict.CORRECT
        wrong = rf"{factor:f} \times 10^{{{power + 1}}}"
        yield "another power", wrong, gold, Verdict.WRONG
        yield "another power", gold, wrong, Verdict.WRONG


def perturbations(gold: str, others: list[str], rng: random.Random) -> Iterator[tuple[str, str]]:
    """Answers that are wrong, each behind the name of the change."""
    answer = read(gold)
    digits = [digit.start() for digit in re.finditer(r"\d", gold)]
    for index in rng.sample(digits, min(2, len(digits))):
        yield "digit", gold[:index] + str((int(gold[index]) + rng.randint(1, 8)) % 10) + gold[index + 1 :]
    opening = OPENING.match(gold)
    start = opening.end() if opening else 0
    if isinstance(answer, Formula | Group) and re.match(r"-?\s*[1-9.a-zA-Z\\]", gold[start:]):
        sign = gold[start:].startswith("-")
        yield "sign", gold[:start] + (gold[start + 1 :] if sign else "-" + gold[start:])
    if isinstance(answer, Group) and answer.kind != "matrix" and len(answer.items) > 1:
        texts = [getattr(item, "text", "?") for item in answer.items]
        around = answer.kind if len(answer.kind) == 2 else ", "
        yield "dropped", _joined(texts[:-1], around)
        yield "replaced", _joined([*texts[:-1], "1234567"], around)
        if len(around.strip()) == 2 and texts[0] != texts[-1]:
            yield "swapped", _joined([texts[-1], *texts[1:-1], texts[0]], around)
    other = rng.choice(others)
    if read(other) != answer and (number(other) is None or number(other) != number(gold)):
        yield "other", other


def _joined(texts: list[str], around: str) -> str:
    joined = ", ".join(texts)
    return around[0] + joined + around[1] if around.strip() in ("()", "[]", "(]", "[)") else joined


def check(name: str, kind: str, pairs: list[tuple[str, str, str]], grader: Grader, expected: Verdict) -> None:
    """Grade (change, answer, gold) triples and print the verdicts."""
    verdicts = grader.grade((answer, gold) for _, answer, gold in pairs)
    graded = [verdict for verdict in verdicts if verdict is not Verdict.UNGRADED]
    right = sum(verdict is expected for verdict in verdicts)
    record = {
        "set": name,
        "check": kind,
        "num": len(pairs),
        "verdicts": dict(Counter(verdicts)),
        "share_correct": round(sum(v is Verdict.CORRECT for v in verdicts) / max(1, len(pairs)), 4),
        "share_of_graded": round(right / max(1, len(graded)), 4),
        "exceptions": [
            [*pair, verdict] for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is not expected
        ],
    }
    print(json.dumps(record, ensure_ascii=False), flush=True)


def speed(pairs: Iterable[tuple[str, str]], num: int) -> None:
    """Time a new grader with two processes, their start included."""
    sample = list(dict.fromkeys(pairs))[:num]
    with Grader(num_workers=2) as grader:
        start = time.perf_counter()
        verdicts = grader.grade(sample)
        seconds = time.perf_counter() - start
    print(
        json.dumps(
            {"check": "speed", "num": len(sample), "seconds": round(seconds, 2), "verdicts": dict(Counter(verdicts))}
        )
    )


def hanging(pairs: list[tuple[str, str]]) -> None:
    """Grade one gold answer that never ends among others that do."""
    with Grader(num_workers=2, limit_s=3.0) as grader:
        start = time.perf_counter()
        half = len(pairs) // 2
        verdicts = grader.grade([*pairs[:half], ("1", HANGS), *pairs[half:]])
        seconds = time.perf_counter() - start
    hung = verdicts.pop(half)
    print(json.dumps({"check": "hang", "hung": hung, "others": dict(Counter(verdicts)), "seconds": round(seconds, 2)}))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder with " + ", ".join(f"{name}.jsonl" for name in SETS))
    parser.add_argument("--num", type=int, default=1000, help="answers to time")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    timed: list[tuple[str, str]] = []
    with Grader(num_workers=2) as grader:
        for name in SETS:
            problems = read_file(arguments.data / f"{name}.jsonl", field_map=NAMED[name].field_map)
            golds = [problem.answer or "" for problem in problems]
            same = [("gold", gold, gold) for gold in golds]
            rewritten = [(done, answer, gold) for gold in golds for done, answer in rewrites(gold)]
            perturbed = [(done, answer, gold) for gold in golds for done, answer in perturbations(gold, golds, rng)]
            check(name, "gold", same, grader, Verdict.CORRECT)
            check(name, "rewritten", rewritten, grader, Verdict.CORRECT)
            check(name, "perturbed", perturbed, grader, Verdict.WRONG)
            measured = [quantity for gold in golds for quantity in quantities(gold, rng)]
            for kind, verdict in (("quantities", Verdict.CORRECT), ("other quantities", Verdict.WRONG)):
                check(name, kind, [quantity[:3] for quantity in measured if quantity[3] is verdict], grader, verdict)
            if name in ("math500", "olympiadbench"):
                timed += [(answer, gold) for _, answer, gold in rewritten + perturbed]
    rng.shuffle(timed)
    speed(timed, arguments.num)
    hanging(timed[:20])


if __name__ == "__main__":
    main()
