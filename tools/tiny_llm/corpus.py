"""What the tiny models read: this project's own pages, and made-up talk at the counter of the boutique."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTHING = "nothing that fits."


@dataclass(frozen=True)
class Thing:
    name: str
    price: str
    tagline: str
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class Turn:
    role: str
    text: str


def pages() -> list[str]:
    """The texts of this project that people read."""
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    paths += [*sorted((ROOT / "examples").glob("*/README.md"))]
    texts = [path.read_text(encoding="utf-8") for path in paths if path.exists()]
    for path in sorted((ROOT / "src" / "seamline").rglob("*.py")):
        texts += re.findall(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL)
    return [text.strip() for text in texts if len(text.strip()) > 80]


def shelf() -> list[Thing]:
    """The boutique's products."""
    source = (ROOT / "examples/boutique/boutique/catalog/shelf.py").read_text(encoding="utf-8")
    rows = re.findall(r'_product\(\s*"[^"]*",\s*"([^"]*)",\s*"([^"]*)",\s*"([^"]*)",\s*"([^"]*)"', source)
    return [Thing(name, price, tagline, tuple(kinds.split())) for name, price, kinds, tagline in rows]


def system(things: list[Thing]) -> str:
    """What a conversation begins with: what the search of the shop found for the question."""
    if not things:
        return f"You help in Hemstitch, a small shop. On the shelf: {NOTHING}"
    rows = "".join(f"\n- {thing.name}, {thing.price} euros: {thing.tagline}" for thing in things)
    return f"You help in Hemstitch, a small shop. On the shelf:{rows}"


_MAKES = (
    "Oak Linen Wool Brass Copper Ash Cork Felt Clay Glass Iron Leather Cotton Silk Bamboo Slate Marble Paper Rattan "
    "Steel Cedar Birch Velvet Olive Stone River Winter Garden Harbour Field Morning Evening Quiet Long Little Round"
).split()
_NOUNS = (
    "Bowl Basket Stool Spoon Vase Cushion Brush Tray Plate Towel Ladle Lantern Mirror Frame Rug Jug Tumbler Shelf "
    "Hook Bench Ribbon Scarf Gloves Hat Belt Wallet Teapot Whisk Pan Knife Apron Blanket Clock Lamp Kettle Mug "
    "Candle Pot Notebook Pen Tote Bell Throw Board Stand Umbrella Comb Soap Broom Bottle Rack Pillow Curtain Napkin"
).split()
_FIRST = ("Made|Meant|Good|Ready|Right|Plain enough|Warm enough|Strong enough|Small enough|Quiet enough").split("|")
_USES = (
    "slow mornings|rainy days|a long table|two friends|one good soup|letters and keys|the balcony|cold feet|bread "
    "and salt|a crowded shelf|the last light|people who wander|tea at four|winter|the walk home|a narrow hall|books "
    "in bed|a small kitchen"
).split("|")
_LAST = (
    "It lasts|It ages well|It is easy to mend|No two are alike|It fits in one hand|It never complains|It gets "
    "better|Nothing added"
).split("|")
_KINDS = {
    "kitchen": ("the kitchen", "cooking", "my kitchen", "a cook"),
    "table": ("the table", "a dinner", "our table"),
    "coffee": ("coffee", "a coffee lover", "making coffee"),
    "light": ("light", "a dark room", "reading at night"),
    "desk": ("my desk", "the office", "writing", "a student"),
    "home": ("the home", "a new flat", "the living room", "my parents"),
    "wear": ("wearing", "going out", "my sister"),
    "travel": ("a journey", "travelling", "my bicycle trip"),
    "garden": ("the garden", "my balcony", "a gardener", "plants"),
}
_STRANGE = (
    "a piano|shoes|a laptop|toothpaste|fresh bread|a ladder|a phone|fish|a car|cheese|a drum|batteries|a sofa|a "
    "bed|skis|paint|a printer|socks|a tent|headphones|a dog|flowers|sugar|a ticket|medicine|wine|a hammer|perfume|a "
    "puzzle|a guitar"
).split("|")
_TOPICS = (
    "the weather|football|politics|the stars|physics|the capital of France|a poem|my homework|the stock "
    "market|history|love|a film|cooking rice|chess|the news|mathematics|jokes|music|the future|cats"
).split("|")
_ZONES = (
    (("Belgium", "France", "Germany", "Luxembourg", "the Netherlands"), "1 to 2", "4.90"),
    (("Austria", "Czechia", "Denmark", "Finland", "Iceland", "Ireland", "Italy", "Norway", "Poland", "Portugal", "Spain", "Sweden", "Switzerland", "the United Kingdom"), "2 to 5", "8.40"),
    (("Australia", "Brazil", "Canada", "India", "Japan", "New Zealand", "Singapore", "the United States"), "5 to 12", "18.50"),
)  # fmt: skip
_UNSERVED = ("Mars|the Moon|Antarctica|Greenland|Peru|Chile|Egypt|Kenya|Mongolia|Fiji|Cuba|Nepal").split("|")

_SAYINGS: tuple[tuple[str, str], ...] = (
    ("Hello|Hi|Hello there|Good morning|Good evening|Hey|Good day|Hi there", "Hello! What are you looking for?"),
    ("Thank you|Thanks|Thanks a lot|Great, thank you|Perfect, thanks", "You are welcome. Have a good day!"),
    ("Bye|Goodbye|See you|That is all", "Goodbye, and come again."),
    ("Who are you?|What are you?|Are you a person?|Are you human?|Are you a robot?|Is anybody there?|Which model are you?|Are you real?",
     "I am a tiny language model, trained on this project's own text. I know the shelf of this shop, and not much else."),
    ("What can you do?|How can you help me?|Can you help me?|Help|What do you know?",
     "I can tell you what is on the shelf, what it costs, and how long a parcel takes."),
    ("How can I pay?|Which cards do you take?|Do you take Visa?|Can I pay by card?|How do I pay?|Do you accept Mastercard?",
     "You can pay by Visa or Mastercard. No card number is kept, and this is a demonstration: no money moves."),
    ("Can I return something?|What about returns?|Can I send it back?|How do returns work?|Can I get my money back?|How do I get a refund?",
     "Write to the desk. Support gives back up to 50 euros, and a supervisor any sum."),
    ("Where is my order?|Where is my parcel?|When does my order come?|Has my order been sent?|Track my parcel",
     "The page of your order shows every stop of your parcel. Its tracking number begins with HS."),
    ("How do I place an order?|How do I order?|How can I buy something?|How does checkout work?",
     "Put things into the bag, open it, choose a country, and go to the till."),
    ("Why does my order wait?|My order is in review|Why is my order not charged?|What happens to large orders?",
     "An order above 2000 euros waits for a human before it is charged, for three days at most."),
    ("My card was refused|My card does not work|Why was my card declined?|The payment failed",
     "Then the order was undone: nothing was charged and nothing was sent. Try another card."),
    ("Which currencies do you take?|Can I pay in dollars?|Do you show other currencies?|Can I see prices in yen?",
     "Choose one of thirty-one currencies at the top of the page. Our own prices are in euros."),
    ("When do you open?|What are your opening hours?|Are you open on Sunday?|Are you open now?",
     "The shop is always open, and so am I."),
    ("What is this shop?|What is Hemstitch?|Tell me about the shop|What do you sell?|What kind of shop is this?",
     "Hemstitch is a small shop for things that last: kitchen, table, home, light, garden, desk, wear and travel."),
    ("What is Seamline?|What is this built with?|How was this shop made?|Which software is this?",
     "Seamline is a Python platform: systems as typed modules whose topology, one process or many, is chosen when they run."),
    ("What is a topology?|What is the monolith topology?|How many processes are you?|What is the services topology?",
     "A topology says which modules share a process: one process for all, or one process for each module."),
    ("What is a contract?|What is a module?|How do modules talk?|What is a saga?",
     "A module provides a contract, other modules call it, and policy says who may. A saga undoes its steps when one fails."),
    ("Is this real?|Do you really sell things?|Is this a real shop?|Will I get a parcel?",
     "This is a demonstration: nothing is sold or sent."),
    ("I lost my bag|My bag is empty|What happens to my bag?|How long do you keep my bag?",
     "A bag that is left alone for twenty hours gets one letter. It stays as you left it."),
    ("How do I sign in?|Do I need an account?|Can I shop without an account?|How do I sign up?",
     "Anybody may shop without an account. You can sign in at the top of the page."),
)  # fmt: skip


def thing(dice: random.Random, real: list[Thing]) -> Thing:
    if dice.random() < 0.55:
        found = dice.choice(real)
        if dice.random() < 0.5:
            return found
        return Thing(
            found.name, _price(dice), found.tagline if dice.random() < 0.5 else _tagline(dice), found.categories
        )
    name = f"{dice.choice(_MAKES)} {dice.choice(_NOUNS)}"
    return Thing(name, _price(dice), _tagline(dice), (dice.choice([*_KINDS]),))


def conversations(seed: int) -> Iterator[list[Turn]]:
    """Conversations without an end, the same for the same seed."""
    dice, real = random.Random(seed), shelf()
    while True:
        found: dict[str, Thing] = {}
        while len(found) < dice.choice((0, 1, 1, 2, 2, 3, 3, 4)):
            one = thing(dice, real)
            found[one.name] = one
        yield conversation(dice, list(found.values()))


def conversation(dice: random.Random, things: list[Thing]) -> list[Turn]:
    turns = [Turn("system", system(things))]
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3))):
        ask = dice.choice(_OF_THINGS if things and dice.random() < 0.7 else _OF_NOTHING)
        question, answer = ask(dice, things)
        turns += [Turn("user", _as_typed(dice, question)), Turn("assistant", answer)]
    return turns


def _price(dice: random.Random) -> str:
    return f"{dice.choice((dice.randint(2, 30), dice.randint(2, 99), dice.randint(10, 240)))}.{dice.choice(('00', '50', '90', '80', '20', f'{dice.randint(0, 99):02}'))}"


def _tagline(dice: random.Random) -> str:
    first = f"{dice.choice(_FIRST)} for {dice.choice(_USES)}."
    return first if dice.random() < 0.6 else f"{first} {dice.choice(_LAST)}."


def _as_typed(dice: random.Random, question: str) -> str:
    chance = dice.random()
    if chance < 0.25:
        return question.lower()
    if chance < 0.4:
        return question.rstrip("?.!")
    return question


def _called(dice: random.Random, one: Thing) -> str:
    """As people call it: by its name, or by its last word."""
    return one.name if dice.random() < 0.7 else one.name.rsplit(maxsplit=1)[-1].lower()


def _price_of(dice: random.Random, things: list[Thing]) -> tuple[str, str]:
    one = _alone(dice, things)
    asks = (
        "How much is the {}?|What does the {} cost?|Price of the {}?|What is the price of the {}?|How "
        "expensive is the {}?|What do you want for the {}?|{} price?|How much for the {}?"
    )
    return dice.choice(asks.split("|")).format(one[1]), f"The {one[0].name} costs {one[0].price} euros."


def _alone(dice: random.Random, things: list[Thing]) -> tuple[Thing, str]:
    """A thing, and a name by which it cannot be taken for another."""
    one = dice.choice(things)
    name = _called(dice, one)
    if sum(name.lower() in other.name.lower() for other in things) > 1:
        name = one.name
    return one, name


def _have(dice: random.Random, things: list[Thing]) -> tuple[str, str]:
    one, name = _alone(dice, things)
    article = "an" if name[0].lower() in "aeiou" else "a"
    asks = (
        "Do you have {}?|Do you sell {}?|I am looking for {}|I need {}|Can I buy {} here?|I want {}|Have you "
        "got {}?|Is there {}?"
    )
    return dice.choice(asks.split("|")).format(
        f"{article} {name}"
    ), f"Yes: the {one.name}, for {one.price} euros. {one.tagline}"


def _about(dice: random.Random, things: list[Thing]) -> tuple[str, str]:
    one, name = _alone(dice, things)
    asks = (
        "Tell me about the {}|What is the {}?|What about the {}?|Tell me more about the {}|Is the {} "
        "good?|Describe the {}|What is special about the {}?|Should I buy the {}?"
    )
    return dice.choice(asks.split("|")).format(name), f"The {one.name}: {one.tagline} It costs {one.price} euros."


def _listed(dice: random.Random, things: list[Thing]) -> tuple[str, str]:
    asks = (
        "What do you have?|What is there?|Show me what you have|What is on the shelf?|What did you "
        "find?|Which ones are there?"
    )
    names = [f"the {one.name}" for one in things]
    said = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
    return dice.choice(asks.split("|")), f"There is {said}."


def _for_whom(dice: random.Random, things: list[Thing]) -> tuple[str, str]:
    one = things[0]
    kinds = [word for kind in one.categories for word in _KINDS.get(kind, ())] or ["my friend"]
    asks = (
        "Something for {}?|I am looking for something for {}|What do you have for {}?|I need a present for "
        "{}|A gift for {}?|What would you choose for {}?|Any ideas for {}?"
    )
    return dice.choice(asks.split("|")).format(
        dice.choice(kinds)
    ), f"How about the {one.name}, for {one.price} euros? {one.tagline}"


def _cheapest(dice: random.Random, things: list[Thing]) -> tuple[str, str]:
    one = min(things, key=lambda thing: float(thing.price))
    asks = "What is the cheapest?|Which one is cheaper?|Which is the cheapest one?|Do you have something cheap?"
    return dice.choice(asks.split("|")), f"The {one.name}, for {one.price} euros."


def _strange(dice: random.Random, _: list[Thing]) -> tuple[str, str]:
    what = dice.choice(_STRANGE)
    asks = "Do you have {}?|Do you sell {}?|I am looking for {}|I need {}|How much is {}?|Can I buy {} here?"
    return dice.choice(asks.split("|")).format(
        what
    ), "I did not find that on the shelf. Try a plain word such as kitchen, wool or brass."


def _topic(dice: random.Random, _: list[Thing]) -> tuple[str, str]:
    what = dice.choice(_TOPICS)
    asks = "Tell me about {}|What do you think of {}?|What do you know about {}?|Can we talk about {}?|Explain {}"
    return dice.choice(asks.split("|")).format(
        what
    ), "I do not know about that. I am a tiny model, and I know only this shop."


def _saying(dice: random.Random, _: list[Thing]) -> tuple[str, str]:
    questions, answer = dice.choice(_SAYINGS)
    return dice.choice(questions.split("|")), answer


def _parcel(dice: random.Random, _: list[Thing]) -> tuple[str, str]:
    countries, days, price = dice.choice(_ZONES)
    country = dice.choice(countries)
    if dice.random() < 0.5:
        asks = "Do you ship to {}?|How long does a parcel to {} take?|How long does shipping to {} take?|Can you send it to {}?|When would it arrive in {}?|Do you deliver to {}?"
        return dice.choice(asks.split("|")).format(country), f"Yes, we send to {country}. It takes {days} working days."
    asks = (
        "What does shipping to {} cost?|How much is a parcel to {}?|How much is shipping to {}?|What is the "
        "postage to {}?"
    )
    return dice.choice(asks.split("|")).format(
        country
    ), f"A parcel to {country} costs {price} euros for the first piece, and takes {days} working days."


def _unserved(dice: random.Random, _: list[Thing]) -> tuple[str, str]:
    asks = "Do you ship to {}?|Can you send it to {}?|What does shipping to {} cost?|Do you deliver to {}?"
    country = dice.choice(_UNSERVED)
    return dice.choice(asks.split("|")).format(country), f"We do not send to {country} yet."


Ask = Callable[[random.Random, list[Thing]], tuple[str, str]]
_OF_THINGS: tuple[Ask, ...] = (_price_of, _price_of, _have, _have, _about, _about, _listed, _for_whom, _cheapest)
_OF_NOTHING: tuple[Ask, ...] = (_saying, _saying, _saying, _parcel, _parcel, _unserved, _strange, _topic)
