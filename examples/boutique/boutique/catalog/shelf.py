"""The shelf: every product of the shop, in the order in which it is shown."""

from __future__ import annotations

from decimal import Decimal

from boutique.catalog import Product
from boutique.money import Money


def _product(
    product_id: str,
    name: str,
    price: str,
    categories: str,
    tagline: str,
    description: str,
    details: tuple[str, ...],
) -> Product:
    return Product(
        id=product_id,
        name=name,
        tagline=tagline,
        description=description,
        categories=tuple(categories.split()),
        price=Money("EUR", Decimal(price)),
        picture=f"{product_id}.svg",
        details=details,
    )


SHELF: tuple[Product, ...] = (
    _product(
        "harbour-lamp",
        "Harbour Lamp",
        "89.00",
        "light desk",
        "A warm pool of light for one book.",
        "A spun steel shade on a brass arm that stays where you leave it. The switch sits on the cable, "
        "where your hand already is.",
        ("Powder-coated steel, solid brass", "40 cm high", "Takes any E27 bulb"),
    ),
    _product(
        "enamel-kettle",
        "Enamel Kettle",
        "54.50",
        "kitchen",
        "Sings a little before it boils.",
        "Two coats of enamel over steel, a beech handle that stays cool, and a spout that pours in a thin, "
        "steady line. It works on every hob, and on a fire.",
        ("1.6 litres", "Gas, electric, induction", "Handle can be replaced"),
    ),
    _product(
        "stoneware-mug",
        "Stoneware Mug",
        "18.00",
        "kitchen table",
        "Holds the morning together.",
        "Thrown by hand, so no two are quite the same. The glaze stops a finger above the foot, where the clay "
        "shows its speckles.",
        ("320 ml", "Dishwasher safe", "Thrown in small batches"),
    ),
    _product(
        "pour-over-stand",
        "Pour-over Stand",
        "42.00",
        "kitchen coffee",
        "Coffee, one cup at a time.",
        "An oak stand with a glass cone. There is nothing to plug in and nothing to break, except the habit of "
        "hurrying.",
        ("Oiled oak, borosilicate glass", "For paper filters no. 2", "Cone lifts out for washing"),
    ),
    _product(
        "walnut-board",
        "Walnut Board",
        "36.90",
        "kitchen table",
        "For bread, cheese and long evenings.",
        "Cut from one plank and oiled three times. Knife marks will make it look better; a little oil each "
        "winter keeps it so.",
        ("38 by 22 cm", "Solid walnut", "Food-safe oil"),
    ),
    _product(
        "linen-apron",
        "Linen Apron",
        "48.00",
        "kitchen wear",
        "Gets softer with every stain.",
        "Washed linen with crossed straps, so nothing pulls at the neck. One wide pocket holds a towel, a "
        "spoon and a letter you have not answered yet.",
        ("Heavy 300 g linen", "One size", "Wash at 40 degrees"),
    ),
    _product(
        "wool-throw",
        "Wool Throw",
        "119.00",
        "home",
        "The quiet end of the sofa.",
        "Woven from lambswool on looms older than we are. The fringe is twisted by hand, the stripes are three "
        "shades of the same hillside.",
        ("130 by 180 cm", "Pure lambswool", "Air it, rarely wash it"),
    ),
    _product(
        "quiet-clock",
        "Quiet Clock",
        "64.00",
        "home desk",
        "Tells the time and nothing else.",
        "A sweeping movement without a tick, behind a dial with twelve strokes and no numbers. You will find "
        "that you can read it anyway.",
        ("24 cm across", "Ash rim", "One AA cell lasts two years"),
    ),
    _product(
        "beeswax-candle",
        "Beeswax Candle",
        "14.50",
        "home light",
        "Smells of summer, faintly.",
        "Pure beeswax and a cotton wick in a small brass dish. It burns for a long evening, and again the next day.",
        ("About 30 hours", "Brass dish included", "Nothing added"),
    ),
    _product(
        "terracotta-pot",
        "Terracotta Pot",
        "16.80",
        "garden home",
        "A good home for something green.",
        "Fired slowly, so that it breathes and survives frost. The saucer fits, which is rarer than it "
        "sounds. The plant is yours to choose.",
        ("16 cm across", "With saucer", "Frost-proof"),
    ),
    _product(
        "watering-can",
        "Watering Can",
        "39.00",
        "garden",
        "Reaches the pots at the back.",
        "A long spout and a weight that sits right when it is full. Galvanised steel, painted the green of a "
        "garden door.",
        ("2.5 litres", "Brass rose, unscrews", "Galvanised steel"),
    ),
    _product(
        "field-notebook",
        "Field Notebook",
        "12.00",
        "desk travel",
        "Room for forty-eight good ideas.",
        "Sewn, not glued, so that it lies flat. The paper takes ink without bleeding; the cover takes rain "
        "without complaint.",
        ("96 pages, dotted", "Fits a coat pocket", "Thread-sewn"),
    ),
    _product(
        "brass-pen",
        "Brass Pen",
        "58.00",
        "desk",
        "Heavier than its thoughts.",
        "Turned from one bar of brass and left bare, so that it darkens where you hold it. It takes the refill "
        "that every stationer has.",
        ("Solid brass", "Standard refill", "Made for one owner"),
    ),
    _product(
        "canvas-tote",
        "Canvas Tote",
        "29.00",
        "wear travel",
        "Carries the market home.",
        "Sailcloth with straps that reach over a winter coat. The seams are the ones sailmakers use, and they "
        "outlast the cloth.",
        ("Holds 18 litres", "Undyed sailcloth", "Inside pocket"),
    ),
    _product(
        "round-sunglasses",
        "Round Sunglasses",
        "76.00",
        "wear travel",
        "For the bright side of the street.",
        "Frames cut from cotton acetate and polished for two days. The lenses are the colour of tea.",
        ("UV 400", "Five-barrel hinges", "Case of felted wool"),
    ),
    _product(
        "bicycle-bell",
        "Bicycle Bell",
        "22.50",
        "travel",
        "Politely: I am here.",
        "One clear note that carries across a square and offends nobody. Spun brass on a steel clamp; it fits "
        "every handlebar we have met.",
        ("22 to 32 mm bars", "Spun brass", "Rings for twelve seconds"),
    ),
)
