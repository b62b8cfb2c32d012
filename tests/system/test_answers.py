r"""Answers that are graded without algebra, kind by kind: examples, and rewrites and perturbations of any value."""

import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from arbitrage.grading import Verdict
from arbitrage.grading.exact import judge_exactly

CORRECT, WRONG, UNGRADED, _ = Verdict

DECIMALS = [
    (r"8.7 \times 10^{8}", "8.7e8"),
    (r"8.7 \cdot 10^8", "870000000"),
    ("8.7×10⁸", "8.7e8"),
    ("8.7 x 10^8", "8.7E+08"),
    (r"-1.25 \times 10^{-3}", "-0.00125"),
    ("0.1+0.2", "0.3"),
    (r"0.1 \cdot 3", "0.3"),
    (r"\frac{0.3}{0.1}", "3"),
    ("1.1^2", "1.21"),
    (r"\sqrt{0.09}", "0.3"),
    ("1e-400", "10^{-400}"),
    ("0.5!", "0.5!"),
]
REPEATING = [
    (r"0.\dot3", r"\frac13"),
    (r"0.\dot{3}", r"\frac13"),
    ("0.333…", r"\frac13"),
    (r"0.333\ldots", "1/3"),
    ("0.333...", "1/3"),
    (r"0.\bar{3}", "1/3"),
    (r"0.1\dot6", r"\frac16"),
    (r"0.\dot14285\dot7", r"\frac17"),
    ("0.142857142857...", r"\frac17"),
    (r"-1.\overline{09}", r"-\frac{12}{11}"),
    ("3.14159...", "3.14159"),
]
UNITS = [
    ("12 (bricks)", "12"),
    ("12 bricks", "12"),
    ("10 m/s", "10"),
    (r"10\text{ m s}^{-1}", "10"),
    (r"\text{5 cm}", "5"),
    ("5 USD", "5"),
    ("USD 5", "5"),
    (r"\$5", "5"),
    ("5€", "5"),
    ("12 red bricks", "12 bricks"),
    (r"12 \, (\text{bricks})", "12"),
    ("12cm", "12"),
    ("12m/s", "12"),
    ("12 mg", "12"),
    ("$5 USD", "5 dollars"),
    ("US$5", "5"),
    ("12 cm²", "12"),
    ("12 m^3", "12"),
    ("7 m", "7"),
    ("7 (m)", "7"),
    ("12 km/h", "12"),
    ("60 mph", "60 miles per hour"),
    ("36 km/h", r"36\text{ kilometers per hour}"),
    ("10 m/s", r"10\text{ m s}^{-1}"),
    (r"9.8\,\mathrm{m/s^2}", r"9.8 \frac{\text{m}}{\text{s}^2}"),
    ("15 square centimeters", r"15\mbox{ cm}^2"),
    ("15 square units", r"15\mbox{ cm}^2"),
    ("12 units", "12 bricks"),
    (r"12 \text{ positive integers}", "12"),
    (r"864 \text{ in}^2", r"864 \mbox{ inches}^2"),
    (r"1\frac12 cups", "1.5"),
    (r"\frac{1}{2} \text{ hour}", "0.5"),
    ("1,200 students", "1200"),
    ("x = 5 cm", "5"),
    ("5 cm, 6 cm", "6, 5"),
    ("(45°, 60°)", r"(45^{\circ}, 60^{\circ})"),
    ("30 degrees", r"30^\circ"),
    ("100°C", "100 degrees Celsius"),
    ("5 dollars", r"\$5"),
    (r"\$5 \text{ per ticket}", "5 dollars"),
    ("$5", "5 USD"),
    (r"2.5 \text{ million dollars}", "2500000"),
    ("5 dozen eggs", "60"),
    (r"1.5 \times 10^{3} \text{ kg}", "1500"),
    ("5th", "5"),
]
OTHER_UNITS = [
    ("15 km", r"15\text{ cm}"),
    ("15 cm", r"15\mbox{ cm}^2"),
    ("15 units", r"15\mbox{ cm}^2"),
    (r"15\mbox{ cm}^5", r"15\mbox{ cm}^2"),
    ("10 m/s", "10 km/h"),
    ("10 m/s", "10 m"),
    ("12 tiles", "12 bricks"),
    ("12 tiles", "12 (bricks)"),
    ("12 blue bricks", "12 red bricks"),
    ("5 cents", r"\$5"),
    ("€5", r"\$5"),
    ("30 radians", r"30^\circ"),
    ("30°C", "30°F"),
    (r"62.5\%", "62.5 cm"),
    ("100 cm", "1 m"),
    ("5 am", "5 pm"),
]
NO_UNITS = [
    ("13 bricks", "12 (bricks)"),
    ("5 million", "5"),
    (r"5\text{ million}", "5"),
    ("5 dozen", "5"),
    ("12 or more", "12"),
    ("12 and a half", "12"),
    ("12 more than x", "12"),
    ("12 if n is odd", "12"),
    ("3 apples and 4 oranges", "3"),
    ("5 feet, 6 inches", "5"),
]
PRODUCTS = [
    "12x",
    "12 x",
    "12 n",
    "12 xyz",
    "12 pi",
    "12m",
    "$12 m$",
    "12 mod 5",
    "12 choose 5",
    "12 (x)",
    "12 squared",
]

RELATIONS = [
    ("5=x", "x=5"),
    ("5=x", "5"),
    ("5", "5=x"),
    ("x=2+3=5", "5"),
    ("2+3=5=x", "5"),
    ("x=5=y", "5"),
    ("-x=5", "x=-5"),
    ("x_1=5", "x_{1} = 5"),
    ("m=7", r"m_{\max}=7"),
    ("f(3)=7", "7"),
    (r"\frac{dy}{dx}=2", "2"),
    (r"\frac{d}{dx}f(x)=2", "f'(x)=2"),
    ("y'=2", r"\frac{dy}{dx}=2"),
    (r"(y,x)=(2,1)", "(x,y)=(1,2)"),
    ("x=1, y=2", "(x,y)=(1,2)"),
    (r"\begin{cases} x=1\\ y=2\end{cases}", "x=1, y=2"),
    (r"\begin{aligned} x&=1\\ y&=2\end{aligned}", "y=2, x=1"),
    (r"x=1 \quad y=2", "x=1, y=2"),
    (r"x=1\text{ or }x=2", r"x=2 \lor x=1"),
    ("x = 1\nx = 2", "1, 2"),
    ("\\frac{1}{2}\n+3", "3.5"),
    ("e=2", "2"),
]
OTHER_RELATIONS = [
    ("7=x", "5=x"),
    ("7=x", "5"),
    ("x=2+3=6", "x=2+3=5"),
    ("2+3=6", "5"),
    ("1=1", "2=2"),
    ("x=y=7", "x=y=5"),
    ("x=5=7", "x=5"),
    ("-x=5", "x=5"),
    ("-x=5", "5"),
    (r"-\angle ABC=90", r"\angle ABC=90"),
    ("x_1=5", "x_2=5"),
    ("a_{10}=5", "a_1=5"),
    ("y=5", "x=5"),
    ("f(1)=5", "f(2)=5"),
    ("f'(1)=5", "f(1)=5"),
    (r"\frac{dy}{dx}=3", r"\frac{dy}{dx}=2"),
    (r"\frac{dx}{dt}=2", r"\frac{dy}{dt}=2"),
    (r"\frac{d^2y}{dx^2}=2", r"\frac{dy}{dx}=2"),
    ("2^{-2001}", "2^{-2000}"),
    ("1/2006!", "1/2004!"),
    ("10^{-50}", "0"),
    ("1-10^{-50}", "1"),
    ("1e-401", "1e-400"),
    (r"x=1 \quad y=2", "y=2"),
    (r"1\\2\\3", "3"),
    ("1; 2; 3", "3"),
    ("x = 1\nx = 2", "2"),
    (r"\{1,2,3\}", "3"),
    ("1 or 2", "2"),
    ("2", "1 or 2"),
    (r"\begin{cases} x=1\\ y=2\end{cases}", "y=2"),
    ("(y,x)=(1,2)", "(x,y)=(1,2)"),
    ("2, 1", "x=1, y=2"),
    ("2(3)", "5"),
]

SETS = [
    (r"\{5\}", "5"),
    ("5", r"\left\{5\right\}"),
    (r"x \in \{5\}", "5"),
    (r"x\in\{5\}", "x=5"),
    (r"x \in \{2,1\}", "1,2"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"),
    (r"\begin{bmatrix}1&2\end{bmatrix}", r"\langle 1,2\rangle"),
    (r"x\ge 2 \text{ and } x\le 3", "[2,3]"),
    (r"x \geq 2 and x < 3", "[2,3)"),
    (r"x\ge 2 \land x\le 3", r"x \in [2,3]"),
    (r"x\ge 2, x\le 3", "[2,3]"),
    (r"3 \ge x \ge 2", "[2,3]"),
    (r"2 \le x \le 3", r"x\ge 2 \text{ and } x\le 3"),
    (r"\sqrt4 \le x \le \frac{6}{2}", "[2,3]"),
    (r"x<-1 \text{ or } x>1", r"(-\infty,-1)\cup(1,\infty)"),
    (r"x \ne 0", r"\mathbb{R} \setminus \{0\}"),
    (r"x \ne 1 \text{ and } x \ne 2", r"(-\infty,1)\cup(1,2)\cup(2,\infty)"),
    ("[-2,1)", r"\{x \mid -2 \le x < 1\}"),
    ("[-2,1)", r"\left\{ x \in \mathbb{R} : -2 \le x < 1 \right\}"),
    (r"\{y | y>1\}", r"(1,\infty)"),
    (r"\{1,2,3\}", r"\{n \in \mathbb{Z} \mid 0 < n < 4\}"),
    (r"\{1,2\}", r"\{x \mid x=1 \text{ or } x=2\}"),
    (r"\left\{ x>1 \right.", r"(1,\infty)"),
    ("k≥2", r"k \geqslant 2"),
    (r"(-\infty,-2)\cup(-2,2)\cup(2,\infty)", r"\{x \mid x \ne \pm 2\}"),
]
OTHER_SETS = [
    (r"\{6\}", "5"),
    (r"\{5,6\}", "5"),
    (r"\begin{pmatrix}2\\1\end{pmatrix}", "(1,2)"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "(1,2,3,4)"),
    (r"x\ge 2 \text{ and } x\le 3", "(2,3)"),
    (r"x\ge 2 \text{ and } y\le 3", "[2,3]"),
    (r"n \ge 2", r"k \geqslant 2"),
    ("(-2,1)", r"\{x \mid -2 \le x < 1\}"),
    ("(0,4)", r"\{n \in \mathbb{Z} \mid 0 < n < 4\}"),
    ("2", r"x \ge 2"),
]

SPELLINGS = [
    ("１２", "12"),
    ("３．５", "3.5"),
    ("－５", "-5"),
    ("１，２００", "1200"),
    ("（１，２）", "(1,2)"),
    ("［1，2）", "[1,2)"),
    ("【1，2】", "[1,2]"),
    ("1、2", "2,1"),
    ("１／２", "0.5"),
    ("٣", "3"),
    ("2½", "2.5"),
    (r"\text{A.}", r"\text{(A)}"),
    (r"\textbf{E)} 30", "(E)"),
    (r"\textbf{E)} 30", "30"),
    (r"\text{(B) } 7", "(B)"),
    (r"\text{B. 7}", "(B)"),
    (r"\mathbf{C}", "(C)"),
    ("Option C", "(C)"),
    (r"\text{Choice (C)}", "(C)"),
    ("7", "7."),
    ("7", "$7.$"),
    ("7", r"7\text{.}"),
    ("7", "7。"),
    ("12", "12 bricks."),
    ("(1,2)", "(1,2)."),
    ("3, 5", "3, 5."),
    ("Evelyn", r"\text{Evelyn.}"),
]
OTHER_SPELLINGS = [
    (r"\text{B.}", r"\text{(A)}"),
    (r"\textbf{E)} 30", "(D)"),
    (r"\textbf{E)} 30", "31"),
    ("0.666...", r"\frac13"),
    ("0.333", r"\frac13"),
    ("１３", "12"),
]


@pytest.mark.parametrize(("said", "gold"), [*DECIMALS, *REPEATING, *UNITS, *RELATIONS, *SETS, *SPELLINGS])
def test_one_value_is_accepted_in_all_its_spellings(said, gold):
    assert judge_exactly(said, gold)[0] is CORRECT


@pytest.mark.parametrize(("said", "gold"), [*OTHER_UNITS, *NO_UNITS, *OTHER_RELATIONS, *OTHER_SETS, *OTHER_SPELLINGS])
def test_another_value_is_refused(said, gold):
    assert judge_exactly(said, gold) == (WRONG, True)


@pytest.mark.parametrize("said", PRODUCTS)
def test_a_product_or_an_operation_is_no_number_with_a_unit(said):
    assert judge_exactly(said, "12")[0] is WRONG
    assert judge_exactly("12", said)[0] in (WRONG, UNGRADED)


@pytest.mark.parametrize(
    "gold", [r"x^2<4", r"\{x \mid x \text{ is even}\}", r"\{2k \mid k \in \mathbb{Z}\}", "about 5 cm"]
)
def test_conditions_that_need_more_are_left_to_algebra_or_ungraded(gold):
    assert judge_exactly("5", gold) in ((WRONG, False), (UNGRADED, True))


NUMBERS = st.decimals(-(10**6), 10**6, allow_nan=False, places=3)
POWERS = st.integers(-30, 30)


@given(NUMBERS, POWERS)
def test_a_decimal_times_a_power_of_ten_is_one_number_in_every_spelling(number, power):
    gold = str(Fraction(number) * Fraction(10) ** power)
    for said in (
        rf"{number} \times 10^{{{power}}}",
        rf"{number}\cdot10^{{{power}}}",
        f"{number}e{power}",
        f"{number} × 10^{power}",
        rf"${number} \times 10^{{{power}}}$ (bricks)",
    ):
        assert judge_exactly(said, gold) == (CORRECT, True)
        assert judge_exactly(gold, said) == (CORRECT, True)
        assert judge_exactly(said, str(Fraction(gold) + Fraction(1, 10**40))) == (WRONG, True)


@given(NUMBERS, NUMBERS)
def test_sums_and_products_of_decimals_are_exact(left, right):
    for said, exact in ((f"({left})+({right})", left + right), (rf"({left})\cdot({right})", left * right)):
        assert judge_exactly(said, f"{exact:f}") == (CORRECT, True)
        assert judge_exactly(said, f"{exact + Decimal('1e-9'):f}") == (WRONG, True)


@given(st.integers(1, 500), st.sampled_from([3, 6, 7, 9, 11, 12, 13, 33, 37, 99, 101]))
def test_a_repeating_decimal_is_its_fraction(over, under):
    assume(over % under)
    whole, rest = divmod(over, under)
    digits, seen = "", dict[int, int]()
    while rest and rest not in seen:
        seen[rest] = len(digits)
        digit, rest = divmod(rest * 10, under)
        digits += str(digit)
    assume(rest)
    start, period = digits[: seen[rest]], digits[seen[rest] :]
    dotted = rf"\dot{period}" if len(period) == 1 else rf"\dot{period[0]}{period[1:-1]}\dot{{{period[-1]}}}"
    for tail in (
        rf"\overline{{{period}}}",
        dotted,
        period * 2 + period[:2] + "..." if len(period) > 1 else period * 4 + "…",
    ):
        assert judge_exactly(f"{whole}.{start}{tail}", f"{over}/{under}") == (CORRECT, True)
        assert judge_exactly(f"{whole}.{start}{tail}", f"{over + 1}/{under}") == (WRONG, True)


UNIT_SPELLINGS = [
    ["cm", "centimeters", "centimetres", r"\text{cm}", r"\mathrm{cm}"],
    ["km/h", "kilometers per hour", r"\text{ km/h}", r"\text{km h}^{-1}", "kph"],
    ["cm^2", "square centimeters", "sq cm", r"\text{ cm}^2", "cm²"],
    ["dollars", "USD", "bucks", r"\text{ dollars}"],
    ["bricks", "red bricks", r"\text{ bricks}"],
    ["tiles", r"\text{ tiles}"],
    ["degrees", r"^\circ", "°", "deg"],
    ["hours", "h", "hrs", r"\text{ hours}"],
    ["students", r"\text{students}"],
    ["m/s", "meters per second", r"\text{ m s}^{-1}", r"\frac{\text{m}}{\text{s}}"],
]


@given(st.decimals(-(10**6), 10**6, allow_nan=False, places=2), st.data())
def test_a_unit_is_optional_but_not_exchangeable(number, data):
    first, second = data.draw(
        st.lists(st.sampled_from(range(len(UNIT_SPELLINGS))), min_size=2, max_size=2, unique=True)
    )
    own, other = (f"{number} {data.draw(st.sampled_from(UNIT_SPELLINGS[kind]))}" for kind in (first, second))
    twin = f"{number} {data.draw(st.sampled_from(UNIT_SPELLINGS[first]))}"
    for said, gold in ((own, str(number)), (str(number), own), (own, twin), (f"x = {own}", f"${number}$")):
        assert judge_exactly(said, gold) == (CORRECT, True)
    assert judge_exactly(own, other) == (WRONG, True)
    assert judge_exactly(own, str(number + 1)) == (WRONG, True)
    assert judge_exactly(str(number + 1), own) == (WRONG, True)


@given(st.integers(-999, 999), st.sampled_from(["bricks", "cm", "red apples", "m/s", "USD", "square feet", "°C"]))
def test_a_unit_may_stand_in_brackets(number, unit):
    for said in (
        f"{number} ({unit})",
        rf"{number} \text{{ ({unit})}}",
        rf"\text{{{number} {unit}}}",
        f"${number}$ {unit}.",
    ):
        assert judge_exactly(said, str(number)) == (CORRECT, True)
        assert judge_exactly(str(number), said) == (CORRECT, True)
        assert judge_exactly(said, str(number + 1)) == (WRONG, True)


NAMES = [
    "x",
    "y",
    "z_1",
    "z_2",
    "z_{12}",
    "a_1",
    r"\theta",
    "f(2)",
    "f'(2)",
    "g(3)",
    r"\frac{dy}{dx}",
    r"\frac{dx}{dt}",
]


@given(
    st.integers(-999, 999),
    st.integers(-999, 999),
    st.lists(st.sampled_from(NAMES), min_size=2, max_size=2, unique=True),
)
def test_an_equation_counts_by_its_value_and_its_name(number, other, names):
    name, another = names
    for said in (f"{name} = {number}", f"{number}={name}", f"{name}={number - 1}+1={number}"):
        for gold in (f"{name}={number}", f"{number} = {name}", str(number)):
            assert judge_exactly(said, gold) == (CORRECT, True)
        if other != number:
            assert judge_exactly(said, f"{name}={other}") == (WRONG, True)
            assert judge_exactly(said, f"{other}={name}") == (WRONG, True)
            assert judge_exactly(f"{said}={other}", f"{name}={number}") == (WRONG, True)
    if {name, another} not in ({"y", "f(2)"}, {"y", "g(3)"}):  # y is the value of any function.
        assert judge_exactly(f"{name}={number}", f"{another}={number}") == (WRONG, True)


@given(st.lists(st.integers(-99, 99), min_size=2, max_size=4, unique=True), st.data())
def test_a_part_of_a_list_is_not_the_list(numbers, data):
    separator = data.draw(st.sampled_from([", ", "; ", " or ", r" \text{ and } ", r" \quad ", r"\\ "]))
    prefix = data.draw(st.sampled_from(["", "x="]))
    said = separator.join(f"{prefix}{number}" for number in numbers)
    shuffled = ", ".join(map(str, data.draw(st.permutations(numbers))))
    assert judge_exactly(said, shuffled) == (CORRECT, True)
    for part in (numbers[-1:], numbers[:-1]):
        gold = ", ".join(map(str, part))
        assert judge_exactly(said, gold) == (WRONG, True)
        assert judge_exactly(gold, said) == (WRONG, True)


@given(st.integers(-50, 50), st.integers(1, 50), st.sampled_from(["()", "[]", "(]", "[)"]), st.sampled_from("xkn"))
def test_inequalities_say_the_same_as_intervals(low, width, brackets, name):
    high = low + width
    left, right = {"(": "<", "[": r"\le "}[brackets[0]], {")": "<", "]": r"\le "}[brackets[1]]
    interval = f"{brackets[0]}{low},{high}{brackets[1]}"
    chain = f"{low}{left}{name}{right}{high}"
    flipped = chain.translate(str.maketrans("<", ">")).replace(r"\le", r"\ge")
    both = [f"{low}{left}{name}", f"{name}{right}{high}"]
    rewrites = [chain, rf"{both[0]} \text{{ and }} {both[1]}", rf"{both[1]} \land {both[0]}", rf"{name} \in {interval}"]
    rewrites.append(rf"\{{{name} \mid {chain}\}}")
    rewrites.append(rf"\{{{name} \in \mathbb{{R}} : {both[0]} \text{{ and }} {both[1]}\}}")
    for said in rewrites:
        assert judge_exactly(said, interval) == (CORRECT, True)
        assert judge_exactly(interval, said) == (CORRECT, True)
        assert judge_exactly(said, f"{brackets[0]}{low},{high + 1}{brackets[1]}") == (WRONG, True)
    assert judge_exactly(flipped, interval) == (WRONG, True) or "<" not in chain + flipped


@given(st.integers(-(10**6), 10**6), st.integers(-99, 99))
def test_full_width_text_reads_like_ascii(number, other):
    for text in (
        f"{number}",
        f"({number},{other})",
        f"[{number},{other})",
        f"{number}/7",
        f"x={number}",
        f"{number}.5",
    ):
        wide = "".join(chr(ord(c) + 0xFEE0) for c in text)
        assert judge_exactly(wide, text) == (CORRECT, True)
        assert judge_exactly(wide, text.replace(str(number), str(number + 1), 1)) == (WRONG, True)


FRAGMENTS = [
    *"0123456789,.()[]{}\\ +-=xi%$/_^&;<>|:!°",
    r"\frac",
    r"\text{",
    r"\le ",
    r"\in ",
    r"\cup ",
    r"\\",
    r"\left",
]
FRAGMENTS += [r"\begin{cases}", r"\end{cases}", " and ", " or ", r"\dot", "...", r"\quad ", r"\mathbb{R}", r"\{", r"\}"]
FRAGMENTS += [" bricks", " m", "m/s", r"\text{ cm}", "million", r"\setminus ", r"\pm ", "１", "½", "³"]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=30))
def test_any_fragments_of_latex_equal_themselves_unless_they_cannot_be_graded(fragments):
    text = "".join(fragments)
    assert judge_exactly(text, text)[0] in (CORRECT, UNGRADED)


LONG = ["a ", "12 " + "ab " * 1300, "1" * 4000, "x=1," * 1000, "0." + "12" * 1900 + "...", "5" + " cm" * 1000]


@pytest.mark.parametrize("fragment", [*FRAGMENTS, "a", "a ", "ab ", "a.", "a-", "a'", "x_1", "1.", "x<1 ", "/cm", "\n"])
def test_repeated_fragments_are_read_in_time(fragment):
    start = time.process_time()
    for prefix in ("", "12 ", r"\text{", "x="):
        for suffix in ("", "(", "x"):
            judge_exactly("1", prefix + fragment * 100 + suffix)
    assert time.process_time() - start < 5.0


@pytest.mark.parametrize("text", LONG)
def test_long_texts_are_read_in_time(text):
    start = time.process_time()
    judge_exactly(text, text[:-1])
    judge_exactly("1", text + "(" * 20)
    assert time.process_time() - start < 5.0
