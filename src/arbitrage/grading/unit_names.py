"""Symbols and words for units of measurement, currencies and numerals."""

from typing import Final


def _table(entries: str) -> dict[str, str]:
    """Every name of an entry with the entry's first name."""
    return {name: entry.split()[0] for entry in entries.split(",") for name in entry.split()}


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


SYMBOLS: Final = _table(
    "m, cm, mm, km, nm, μm, in, ft, yd, mi,"
    "g gm, kg, mg, t, lb lbs, oz,"
    "s sec secs, ms, min mins, h hr hrs, d, wk wks, yr yrs, am AM, pm PM,"
    "L l, mL ml, dL dl, gal,"
    "N, J, kJ, W, kW, kWh, V, A, K, C, F, T, Pa, kPa, Hz, kHz, MHz, mol, cal, kcal, eV, Ω,"
    "rad, deg °, °C, °F,"
    "$ USD usd, € EUR eur, £ GBP gbp, ¥ JPY jpy, ₹ INR inr Rs rs, CNY cny RMB rmb, ¢"
)
"""Upper and lower case are told apart."""
WORDS: Final = _table(
    "m meter metre, cm centimeter centimetre, mm millimeter millimetre, km kilometer kilometre,"
    "in inch, ft foot feet, yd yard, mi mile,"
    "g gram gramme, kg kilogram kilogramme kilo, mg milligram, t tonne, lb pound, oz ounce,"
    "s second, ms millisecond, min minute, h hour, d day, wk week, month, yr year,"
    "L liter litre, mL milliliter millilitre, gal gallon,"
    "N newton, J joule, W watt, kW kilowatt, V volt, A ampere amp, K kelvin, Pa pascal, Hz hertz, mol mole, Ω ohm,"
    "rad radian, deg degree, °C celsius, °F fahrenheit,"
    "$ dollar buck, € euro, ¥ yen, ₹ rupee, CNY yuan, ¢ cent,"
    "unit, person people, child children, man men, woman women, mouse mice, goose geese, tooth teeth"
)
"""In lower case and, where it ends in s, in the singular."""
COMPOUNDS: Final = {
    "mph": {"mi": 1, "h": -1},
    "kph": {"km": 1, "h": -1},
    "kmh": {"km": 1, "h": -1},
    "kmph": {"km": 1, "h": -1},
    "mps": {"m": 1, "s": -1},
    "fps": {"ft": 1, "s": -1},
    "cc": {"cm": 3},
    "sqft": {"ft": 2},
}
"""Products of powers in one word, in lower case."""
EXPONENTS: Final = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
"""Words before or, in -ed, behind a unit."""
SCALES: Final = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
"""Words that multiply the number before them."""
SINGLE: Final = frozenset("msghLlNJWV") | {"m^2", "m^3"}
"""Read as a unit where no mark tells them from a variable: behind a number and a space."""
TOUCHING: Final = frozenset({"cm", "mm", "km", "kg", "ft", "°", "°C", "°F", "$", "€", "£", "¥", "₹", "¢"})
"""Short symbols that stand right behind a number; other short ones may be products of variables there."""
FILLERS: Final = _set(
    "a all altogether an apiece each exactly extra its left more of one only other remaining the total us whole"
)
"""Words that add nothing to a unit."""
REFUSED: Final = _set(
    # Conditions and statements.
    "about and approx approximately are as at between but else equals except false for from if is no none not or",
    "roughly such than that to true undefined unless when where with yes",
    # Operations, functions and constants.
    "base by choose cos cosec cot csc div divided exp factorial gcd infinity int lcm lim ln log max min minus mod",
    "modulo over plus prod sec sin sqrt sum tan alpha beta delta gamma lambda omega phi pi sigma tau theta",
    # Numbers.
    "eighth fifth fifths fourth fourths half halves ninth quarter quarters seventh sixth tenth",
    "tenths third thirds",
)
"""Words that no unit holds; some of them are also symbols, and those are units."""
