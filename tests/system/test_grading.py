r"""Grading: what is exact, what needs algebra, what cannot be graded, and what hangs."""

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arbitrage.core.errors import ConfigError, GradingError
from arbitrage.grading import Grader, Verdict, is_same
from arbitrage.grading.exact import judge_exactly
from arbitrage.grading.pool import Pool

CORRECT, WRONG, UNGRADED, TIMED_OUT = Verdict
HANGS = "9^{9^{9^{9^{9}}}}!"


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        ("7.0", "7"),
        ("027", "27"),
        ("$1,200$", "1200"),
        (r"10,\!080", "10080"),
        ("10{,}080", "10080"),
        ("1 000 000", "1000000"),
        (r"\$18.90", "18.9"),
        (".35625", "0.356250"),
        (r"\dfrac{4}{3}", r"\frac43"),
        ("-4/3", r"-\frac{4}{3}"),
        (r"\frac{-4}{3}", r"-\tfrac 4 3"),
        ("1.8", r"1\frac{4}{5}"),
        ("1 1/2", r"\frac 3 2"),
        ("62.5", r"62.5\%"),
        ("0.625", "62.5%"),
        (r"62.5 \text{ percent}", "62.5%"),
        ("15", r"15\mbox{ cm}^2"),
        (r"5.4 \text{ cents}", "5.4"),
        ("18 inches", "18"),
        (r"18 \text{ in}^3", "18"),
        ("60 miles per hour", "60"),
        ("30 degrees", r"30^{\circ}"),
        ("52_8", "52_{8}"),
        ("52", "52_8"),
        ("x = 5", "5"),
        ("5", "k=5"),
        ("x = 2 + 3 = 5", "5"),
        (r"\boldsymbol{5}", "5"),
        ("1, 3", "3,1"),
        (r"\{3, 1\}", "1,3"),
        ("x=3 or x=1", "1,3"),
        ("g(n)=1, f( n )=2", "f(n)=2, g(n)=1"),
        (r"3 \text{ and } 1", "1,3"),
        (r"3; 1", "$1$,$3$"),
        ("200,100", "100, 200"),
        (r"\left( 1 , 2 \right)", "(1,2)"),
        ("(1,200)", "(1, 200)"),
        ("1, 2", "(1,2)"),
        (r"(3,4\,]", r"\left(3,4\right]"),
        ("(x,y)=(1,2)", "(1,2)"),
        (r"[5,7] \cup (1,2)", r"(1,2)\cup[5,7]"),
        (r"x \in [5,7]", "[5,7]"),
        (r"\begin{bmatrix}-1/3\\2\end{bmatrix}", r"\begin{pmatrix} \frac{-1}{3} \\ 2 \end{pmatrix}"),
        ("(-1,2)", r"\begin{pmatrix} -1 \\ 2 \end{pmatrix}"),
        ("(C)", r"\text{(C)}"),
        ("C", r"\text{C}"),
        (r"\textbf{(C)}\ 5", "(C)"),
        (r"\textbf{(C)}\ 5", "5"),
        ("evelyn.", r"\text{Evelyn}"),
        ("No Solution", r"\text{no solution}"),
        (r"\emptyset", r"\{\}"),
        ("C. 5", "(C)"),
        ("Yes", r"\text{yes}"),
        (r"0.1\overline{6}", r"\frac16"),
        (r"\frac{1}{3} \approx 0.333", "1/3"),
        (r"(-\infty,\infty)", r"x \in \mathbb{R}"),
    ],
)
def test_what_needs_no_algebra_is_graded_at_once(said, gold):
    assert judge_exactly(said, gold) == (CORRECT, True)


@pytest.mark.parametrize(
    ("said", "gold"),
    [
        (None, "5"),
        ("", "5"),
        ("-5", "5"),
        ("0.333333", r"\frac{1}{3}"),
        ("0.0000678", ".0000672"),
        ("11/2", "1 1/2"),
        ("6.25", "62.5%"),
        ("42", "52_8"),
        ("52_9", "52_8"),
        ("1,1", "1,3"),
        ("1", "1,3"),
        ("1,3,3", "1,3"),
        ("-2", "-2,-2"),
        ("(2,1)", "(1,2)"),
        ("[1,2]", "(1,2)"),
        ("(3,4)", "(3,4]"),
        (r"(1,2)\cup(5,7]", r"(1,2)\cup[5,7]"),
        (r"\begin{pmatrix} 2 \\ -1 \end{pmatrix}", r"\begin{pmatrix} -1 \\ 2 \end{pmatrix}"),
        ("f(n)=1, g(n)=2", "f(n)=2, g(n)=1"),
        ("D", r"\text{(C)}"),
        ("5", "(C)"),
        (r"\text{odd}", r"\text{even}"),
        ("7" * 5000, "7"),
        ("1e999999999", "(C)"),
    ],
)
def test_what_is_wrong_without_algebra_is_said_at_once(said, gold):
    assert judge_exactly(said, gold) == (WRONG, True)


@given(st.text(max_size=60) | st.text(alphabet="0123456789,.()[]{}\\ +-=xi%$/_^&;", max_size=40))
def test_any_text_equals_itself_unless_it_cannot_be_graded(text):
    assert judge_exactly(text, text)[0] in (CORRECT, UNGRADED)


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_equal_in_every_spelling_and_to_no_other(number):
    for said in (f"{number:,}", f"{number}.00", rf"${number}\text{{ m}}$", f"n = {number}", f"{number * 3}/3"):
        assert judge_exactly(said, str(number)) == (CORRECT, True)
    assert judge_exactly(f"{number + 1:,}", str(number)) == (WRONG, True)


def test_what_nests_too_deep_is_not_read():
    assert judge_exactly("5", "(" * 500 + "5" + ")" * 500) == (UNGRADED, True)


@pytest.fixture(scope="module")
def grader():
    pytest.importorskip("math_verify")
    with Grader(num_workers=1, limit_s=20.0) as made:
        yield made


ALGEBRA = [
    ("y+x", "x+y", CORRECT),
    ("x+2", "x+1", WRONG),
    ("x + 1", "x+1", CORRECT),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt{2}}{2}", CORRECT),
    (r"\sqrt{16}", "4", CORRECT),
    (r"\sqrt{17}", "4", WRONG),
    ("1.414214", r"\sqrt{2}", WRONG),
    ("2^{1009}", r"2 \cdot 2^{1008}", CORRECT),
    (r"\frac{\pi}{2}", r"0.5\pi", CORRECT),
    ("9i+6", "6 + 9 i", CORRECT),
    (r"1-\sqrt{19}, 1+\sqrt{19}", r"1 \pm \sqrt{19}", CORRECT),
    (r"1+\sqrt{19}, 1+\sqrt{19}", r"1 \pm \sqrt{19}", WRONG),
    (r"\left(\frac{\sqrt 9}{5},\frac83\right]", r"\left(\frac{3}{5},\frac{8}{3}\right]", CORRECT),
    (r"-2 \le x \le 7", r"x \in [-2,7]", CORRECT),
    (r"-2 < x \le 7", r"x \in [-2,7]", WRONG),
    ("x>5", r"(5,\infty)", CORRECT),
    ("10x-14y+22z=-8", "5x - 7y + 11z + 4 = 0", CORRECT),
    ("5x-7y+11z-4=0", "5x - 7y + 11z + 4 = 0", WRONG),
    ("2+3=5", "5", CORRECT),
    ("2x=5", "5", WRONG),
    ("x^2+2=0", "x^2+1=0", WRONG),
    (r"-\angle A B = 90", r"\angle A B = 90", WRONG),
    ("2x-y+3=0", "y = 2x + 3", CORRECT),
    ("f(x)=3+2x", "y = 2x + 3", CORRECT),
    (r"\frac{1}{3}\begin{pmatrix}-1\\2\end{pmatrix}", r"\begin{pmatrix} -1/3 \\ 2/3 \end{pmatrix}", CORRECT),
    (r"\frac{n!}{2!(n-2)!}", r"\frac{n(n-1)}{2}", CORRECT),
    (r"\sin 30^\circ", r"\frac12", CORRECT),
    ("6", r"\binom42", CORRECT),
    ("y=x/2", "x = 2y", CORRECT),
    (r"x<2 \text{ or } x>3", r"(-\infty,2) \cup (3,\infty)", CORRECT),
    (r"x<2 \text{ or } x>4", r"(-\infty,2) \cup (3,\infty)", WRONG),
    ("1234567", r"\log_{10} 250", WRONG),
    (r"\pi\%", r"\frac{\pi}{100}", CORRECT),
    # Decimals are fractions.
    ("0.1x+0.2x", "0.3x", CORRECT),
    (r"1.5 \times 10^{3} \pi", r"1500\pi", CORRECT),
    (r"x^{0.5}", r"\sqrt{x}", CORRECT),
    (r"0.3333x", r"\frac{x}{3}", WRONG),
    (r"2(3)+\sqrt{2}", r"6+\sqrt{2}", CORRECT),
    (r"2(3)+\sqrt{2}", r"5+\sqrt{2}", WRONG),
    # A unit behind a formula, and letters that may be one.
    (r"3\sqrt{2} cm", r"3\sqrt{2}", CORRECT),
    (r"3\sqrt{2} cm", r"3\sqrt{2} \text{ m}", WRONG),
    ("2n bricks", "2n", CORRECT),
    (r"2+\sqrt{3} (m)", r"2+\sqrt{3}", CORRECT),
    ("n(n-1) (m)", "n(n-1)", WRONG),
    ("$6m$ USD", "6m", CORRECT),
    ("6 m", "6m", CORRECT),
    ("6", "6m", WRONG),
    ("6m", "6", WRONG),
    # Equations.
    ("5=x+y", "x+y=5", CORRECT),
    ("7=x+y", "x+y=5", WRONG),
    ("-x-y=-5", "x+y=5", CORRECT),
    ("-x-y=5", "x+y=5", WRONG),
    ("7=2x", "5=2x", WRONG),
    ("2=e", "3=e", WRONG),
    (r"\frac{dy}{dx}=3x", r"\frac{dy}{dx}=2x", WRONG),
    (r"\frac{dy}{dx}=x+x", "y'=2x", CORRECT),
    (r"2\frac{dy}{dx}=4x", r"\frac{dy}{dx}=2x", CORRECT),
    (r"\frac{dy}{dx}+y=3x", r"\frac{dy}{dx}+y=2x", WRONG),
    (r"\frac{\partial f}{\partial x}=2x", r"\frac{\partial f}{\partial y}=2x", WRONG),
    ("f'(x)+1", "f(x)+1", WRONG),
    ("2x=3y=7", "2x=3y=5", WRONG),
    ("3y=5=2x", "2x=3y=5", CORRECT),
    ("x=y=2z", "x=y=3z", WRONG),
    ("x-7=0", "x=5", WRONG),
    ("x=1 x=2", "2", WRONG),
    ("0=x-5", "x=5", CORRECT),
    ("y=2x", "z=2x", WRONG),
    ("f(x)=2x", "g(x)=2x", WRONG),
    # Numbers that differ by little, or are small.
    (r"2^{-2001}\sqrt{2}", r"2^{-2000}\sqrt{2}", WRONG),
    (r"2^{-2000}\sqrt{2}", "0", WRONG),
    (r"2^{-2001} \cdot 2\sqrt{2}", r"2^{-2000}\sqrt{2}", CORRECT),
    (r"\sqrt{2}+10^{-300}", r"\sqrt{2}", WRONG),
    (r"\sqrt{2}+e^{-1000}", r"\sqrt{2}", WRONG),
    ("e^{-1001}", "e^{-1000}", WRONG),
    (r"\frac{\pi}{10^{40}}", "0", WRONG),
    (r"\sin(10^{-50})", "10^{-50}", WRONG),
    ("x+10^{-100}", "x", WRONG),
    (r"\frac{x}{2006!}", r"\frac{x}{2004!}", WRONG),
    (r"\sqrt{3+2\sqrt{2}}", r"1+\sqrt{2}", CORRECT),
    (r"0", r"-\infty", WRONG),
    # Names in formulas.
    ("x_1+x_2", "x_1+x_3", WRONG),
    ("x_{2}+x_1", "x_1+x_2", CORRECT),
    ("a_{n+1}", "a_{n-1}", WRONG),
    (r"2\theta_1", r"2\theta_2", WRONG),
    ("I_1+1", "I_2+1", WRONG),
    ("f_1(x)", "f_2(x)", WRONG),
    ("2A a", "2a^2", WRONG),
    ("2R+1", "1+2r", CORRECT),
    # A part of a list.
    (r"\sqrt{3}", r"\sqrt{2} \quad \sqrt{3}", WRONG),
    (r"\sqrt{2},\sqrt{3}", r"\sqrt{3}", WRONG),
    ("(3,4]", r"(1,2) \cup (3,4]", WRONG),
    # The imaginary unit.
    ("i^2", "-1", CORRECT),
    ("(1+i)^2", "2i", CORRECT),
    ("(1+i)^2", "-2i", WRONG),
    (r"e^{i\pi}", "-1", CORRECT),
    (r"\sqrt{-4}", "2i", CORRECT),
    (r"\sqrt{-4}", "-2i", WRONG),
    (r"\frac{1+i}{1-i}", "i", CORRECT),
    (r"\frac{1}{i}", "-i", CORRECT),
    ("|3+4i|", "5", CORRECT),
    (r"2\mathrm{i}", "2i", CORRECT),
    ("2", r"2\mathrm{i}", WRONG),
    ("(x+i)(x-i)", "x^2+1", CORRECT),
    (r"\cos\theta + i\sin\theta", r"e^{i\theta}", CORRECT),
    (r"2 \operatorname{cis} 90^\circ", "2i", CORRECT),
    (r"\frac{-1+i\sqrt3}{2}", r"e^{2\pi i/3}", CORRECT),
    (r"\frac{-1-i\sqrt3}{2}", r"e^{2\pi i/3}", WRONG),
    (r"\pm i", "i, -i", CORRECT),
    # An index or a variable.
    (r"\sum_{i=1}^{3} i", "6", CORRECT),
    (r"\sum_{i=1}^{n} i", r"\frac{n(n+1)}{2}", CORRECT),
    (r"\sum_{i=1}^{n} i^2", "-n", WRONG),
    ("a_i^2", "-1", WRONG),
    ("n+i^2", "n-1", WRONG),
    ("i^2+j", "j-1", WRONG),
    ("f(i)=i^2", "f(i)=-1", WRONG),
    (r"\frac{i(i+1)}{2}", r"\frac{i^2+i}{2}", CORRECT),
    ("I^2", "-1", WRONG),
    # Sets and inequalities.
    (r"x\ge 2 \text{ or } x\le 3", "[2,3]", WRONG),
    (r"x\ge \sqrt2 \text{ and } x\le 3", r"[2^{1/2},3]", CORRECT),
    ("x^2<4", "(-2,2)", CORRECT),
    ("(-2,2)", r"\{x : |x|<2\}", CORRECT),
    ("(-2,2]", r"\{x : |x|<2\}", WRONG),
    ("x+y>2", "2<x+y", CORRECT),
    ("x+y<2", "x+y>2", WRONG),
    ("-2x<-4", "x>2", CORRECT),
    (r"\gcd(a,b)", "1", WRONG),
    (r"1+2+\cdots+n", r"\frac{n(n+1)}{2}", WRONG),
    (None, "x+y", WRONG),
    ("(2", "x+y", WRONG),
    ("t(0,4]", "$t(0,4]$", UNGRADED),
    (None, "$t(0,4]$", UNGRADED),
    ("f(x)=2x, where x is an integer", "f(x)=2x, where x is an integer", UNGRADED),
    ("See the proof, it is long", "See the proof, it is long", UNGRADED),
    (r"2n \text{ for all } n", r"2n \text{ for all } n", UNGRADED),
    ("5", "", UNGRADED),
    ("5", None, UNGRADED),
]


def test_algebra_decides_where_text_cannot(grader):
    found = grader.grade((said, gold) for said, gold, _ in ALGEBRA)
    assert [(*pair[:2], verdict) for pair, verdict in zip(ALGEBRA, found, strict=True)] == ALGEBRA


@pytest.fixture(scope="module")
def judge():
    pytest.importorskip("math_verify")
    from arbitrage.grading.symbolic import judge

    return judge


SMALL = st.integers(-9, 9)


@settings(max_examples=25, deadline=None)
@given(SMALL, SMALL, SMALL, SMALL)
def test_complex_numbers_are_multiplied(judge, a, b, c, d):
    said, gold = f"({a}+{b}i)({c}+{d}i)", f"{a * c - b * d}+{a * d + b * c}i"
    assert judge(said, gold) is CORRECT
    assert judge(said, f"{gold}+1") is WRONG
    assert judge(said, f"{gold}+i") is WRONG
    assert judge(f"{said}+j", f"{gold}+j") is (CORRECT if not b * d else WRONG)  # Beside j, i is an index.


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 3000), st.integers(1, 5), st.sampled_from([r"\sqrt{2}", r"\pi", "x", "e", r"\log 3"]))
def test_small_numbers_are_told_apart(judge, exponent, more, factor):
    assert judge(rf"2^{{-{exponent}}} \cdot {factor}", rf"\frac{{{factor}}}{{2^{{{exponent}}}}}") is CORRECT
    assert judge(rf"2^{{-{exponent + more}}} \cdot {factor}", rf"2^{{-{exponent}}} \cdot {factor}") is WRONG
    assert judge(rf"{factor}+2^{{-{exponent}}}", factor) is WRONG


@settings(max_examples=10, deadline=None)
@given(SMALL, st.integers(1, 9), st.integers(-9, 9), st.sampled_from(["x", "y_1", r"\theta"]))
def test_equations_are_equal_to_their_multiples_only(judge, a, b, c, name):
    gold = f"{b}{name}+{a}z={c}"
    for said in (f"{c}={a}z+{b}{name}", f"{-3 * b}{name}+{-3 * a}z={-3 * c}", f"{b}{name}+{a}z-({c})=0"):
        assert judge(said, gold) is CORRECT
    for said in (f"{c + 1}={a}z+{b}{name}", f"-{gold}", f"{b}w+{a}z={c}", f"{b}{name}_0+{a}z={c}"):
        assert judge(said, gold) is (WRONG if said != f"-{gold}" or a or c else CORRECT)


@settings(max_examples=25, deadline=None)
@given(st.decimals(-99, 99, allow_nan=False, places=2), st.decimals(-99, 99, allow_nan=False, places=2))
def test_decimals_in_formulas_are_exact(judge, a, b):
    assert judge(f"({a})x+({b})x", f"({a + b})x") is CORRECT
    assert judge(f"({a})x+({b})x", f"({a + b})x+10^{{-30}}") is WRONG


def test_whether_a_gold_answer_counts_does_not_depend_on_the_answer(grader):
    for gold, verdicts in (("$t(0,4]$", {UNGRADED}), ("x+y", {CORRECT, WRONG})):
        assert set(grader.grade([(gold, gold), ("5", gold), (None, gold), ("(", gold)])) == verdicts


def test_verdicts_are_remembered(grader, monkeypatch):
    wanted = grader.grade([("a+b", "b+a"), ("a+b", "a")])
    monkeypatch.setattr(grader, "_pool", None)
    assert grader.grade([("a+b", "a"), ("a+b", "b+a"), ("1", "1")]) == [wanted[1], wanted[0], CORRECT]


def test_an_answer_that_hangs_is_wrong_where_the_gold_answer_can_be_read():
    with Grader(limit_s=1.0, num_workers=1) as grader:
        assert grader.grade([(HANGS, r"\sqrt{2}"), (r"2^{1/2}", r"\sqrt{2}")]) == [WRONG, CORRECT]


def test_a_gold_answer_that_hangs_times_out_alone():
    pytest.importorskip("math_verify")
    with Grader(num_workers=1, limit_s=0.7) as grader:
        pairs = [("y+x", "x+y"), ("1", HANGS), ("x-y", "x+y"), ("b+a", "a+b")]
        assert grader.grade(pairs) == [CORRECT, TIMED_OUT, WRONG, CORRECT]
    assert TIMED_OUT.is_correct is None


FAKE = """
import sys
print("ready", flush=True)
for line in sys.stdin:
    if line == "die\\n":
        sys.exit(1)
    print("answer to", line, end="", flush=True)
"""


def test_a_worker_that_dies_loses_only_its_own_question():
    questions = [f"q{i}" for i in range(20)]
    pool = Pool([sys.executable, "-c", FAKE], 2)
    found = pool.ask([*questions[:5], "die", *questions[5:], "die"])
    pool.close()
    assert found == [*(f"answer to q{i}" for i in range(5)), None, *(f"answer to q{i}" for i in range(5, 20)), None]


def test_a_worker_that_died_idle_is_replaced():
    pool = Pool([sys.executable, "-c", FAKE], 1)
    assert pool.ask(["a"]) == ["answer to a"]
    process = pool._workers[0]._process
    process.kill()
    process.wait()
    assert pool.ask(["b"]) == ["answer to b"]
    pool.close()


def test_workers_that_do_not_start_are_an_error():
    with pytest.raises(GradingError, match="status 3"):
        Pool([sys.executable, "-c", "raise SystemExit(3)"], 1).ask(["a"])


def test_without_the_extra_text_is_compared_and_one_warning_says_so(monkeypatch):
    monkeypatch.setattr("arbitrage.grading.grader.find_spec", lambda name: None)
    grader = Grader()
    assert grader.grade([("1/2", "0.5"), ("(2,1)", "(1,2)")]) == [CORRECT, WRONG]
    with pytest.warns(UserWarning, match=r"'y\+x' for 'x\+y' are compared as text .*'arbitrage-llm\[math\]'"):
        assert grader.grade([("y+x", "x+y")]) == [WRONG]
    assert grader.grade([("x + y", "x+y"), ("b+a", "a+b")]) == [CORRECT, WRONG]


@pytest.mark.parametrize(("values", "told"), [({"limit_s": 0.0}, "limit_s"), ({"num_workers": -1}, "num_workers")])
def test_a_bad_setting_is_named(values, told):
    with pytest.raises(ConfigError, match=told):
        Grader(**values)


def test_one_answer_can_be_graded_by_itself():
    assert is_same("1,200", "1200")
    assert not is_same(None, "7")
