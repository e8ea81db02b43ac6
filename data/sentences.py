"""English sentences for the embedded corpus, made by a small grammar.

A sentence is one of the templates below with its slots filled from word lists, so that the sounds
of English occur often and in changing neighbours. All templates and lists were written for this
project. At 140 to 190 words a minute nearly all sentences take 1.5 to 6 s.
"""

from __future__ import annotations

import re

import numpy as np

_TEMPLATES = (
    # Statements
    "{name} {past} {the} {adjective} {thing} {where} {when}.",
    "{The} {person} {past} {a} {adjective} {thing} and {past} {a} {material} {thing}.",
    "{When}, {the} {person} {past} {the} {adjective} {thing} {where}.",
    "{The} {adjective} {animal} waited {where} while {name} {past} {the} {thing}.",
    "Although it was {weather}, {name} {past} {the} {material} {thing} {how}.",
    "Nobody {where} had ever seen such {a} {adjective} {animal}.",
    "{name} and {the} {person} {how} {past} their {thing}, but not {the} {animal}.",
    "We usually eat {food} with {food} when it is {weather} outside.",
    "My {relative} keeps {a} {colour} {animal} and two {adjective} {animals} in {town}.",
    "{The} {thing} on the left is much {comparative} than {the} {colour} {thing}.",
    "If {the} {food} tastes of {food}, {the} {person} will {verb} it {how}.",
    "There is {a} {colour} {thing} hidden {where}, next to {the} {material} {thing}.",
    "I would rather {verb} {a} {adjective} {thing} than {verb} the {animals} again.",
    "{The} {person} from {town} told us {a} strange story about {adjective} {animals}.",
    "{name} {past} it {how}.",
    "{The} {thing} is {where}.",
    "It was {weather} in {town}, {weather} in {town}, and {weather} {where}.",
    "{name}, {name} and {name} {past} {the} {thing}: nobody else did.",
    "{The} {adjective} {thing}, | which {name} {past} {when}, is gone.",
    "First {name} {past} {the} {thing}; | then {the} {person} {past} {the} {animal}.",
    "What {the} {person} {past} was {adjective}, | but hardly {adjective}.",
    "So {the} {animal} stayed {where}, | and {name} went to {town}.",
    "{food}, {food}, {food}: | that is all we have {when}.",
    # Exclamations
    "What {a} {adjective} {thing}!",
    "{name}! | {The} {animal} is {where}!",
    "No, not {the} {colour} {thing}, | {the} {colour} one!",
    "How {how} {the} {person} {past} it!",
    # Questions
    "Did {the} {adjective} {person} really {verb} your {material} {thing} {when}?",
    "Where could {name} possibly {verb} {a} {colour} {thing} in {town}?",
    "Why did your {relative} {verb} {the} {food} before {the} {person} arrived?",
    "Have you ever tried {food} with {food} {where}?",
    "Who {past} {the} {adjective} {thing} that we left {where}?",
    "Would {name} like some more {food}, or shall we {verb} {the} {thing} first?",
    "How many {animals} can {a} {person} {verb} in {number} minutes?",
    "Is {the} {thing} {where}?",
    "{name}, | have you seen {the} {adjective} {animal}?",
    "Was it {weather} in {town}, | or {weather}?",
    "Who {past} {the} {thing}?",
    # Numbers, dates and places
    "Train number {number} to {town} leaves at {clock} from platform {small}.",
    "The meeting with {the} {person} is on {date}, at {clock}.",
    "{name} was born in {town} on {date}, the youngest of {small} children.",
    "{The} {material} {thing} costs {number} pounds and weighs {small} ounces.",
    "Turn left after {number} yards, then follow the road to {town}.",
    "{number} {animals} were counted {where} on {date}.",
    "From {town} to {town} it takes about {small} hours by boat.",
    "Room {number} is on the {ordinal} floor, just {where}.",
    "{date}, {clock}.",
    "Dial {small}, {small}, {number}, | {small}, {number}.",
    # Commands and requests
    "Please {verb} {the} {thing}.",
    "Wait! | Do not {verb} {the} {animal}.",
    "Please {verb} {the} {adjective} {thing} and {verb} {a} {thing} {where}.",
    "Do not {verb} {the} {colour} {thing} until {the} {person} has left {town}.",
    "Ask {name} to {verb} {the} {material} {thing} before {clock}.",
    "Put {small} spoons of {food} into {the} {material} bowl and stir it {how}.",
    "Remember to {verb} {the} {thing}, {name}, and call your {relative} {when}.",
    "Could you {verb} {small} {adjective} {animals} for {the} {person} {when}?",
)

# One paragraph a slot. A verb is written base/past.
_VOCABULARY = """
name: Alice, Amara, Beatrix, Bruno, Charlotte, Chidi, Daphne, Dmitri, Edith, Emil, Farouk, Fiona,
Gareth, Geoffrey, Hannah, Hugo, Imogen, Ivan, Jasmine, Joyce, Judith, Keith, Kenji, Laura, Leroy,
Lucy, Malcolm, Mei, Miguel, Nadia, Nigel, Olive, Oscar, Priya, Quentin, Rajesh, Ruth, Sasha, Sheila,
Thelma, Theo, Ursula, Victor, Walter, Wanda, Yasmin, Yorick, Zachary, Zoe

person: baker, captain, carpenter, cellist, chemist, clerk, conductor, cyclist, dancer, dentist,
doctor, driver, electrician, engineer, farmer, fisherman, gardener, geologist, grocer, guard, guide,
judge, juggler, lawyer, librarian, mechanic, merchant, miller, nurse, optician, painter, pharmacist,
photographer, pianist, pilot, plumber, postman, sailor, shepherd, singer, surgeon, tailor, teacher,
translator, visitor, waiter, watchmaker, weaver

relative: aunt, brother, cousin, elder sister, father, grandmother, mother, nephew, niece, sister,
uncle, younger brother

adjective: ancient, awkward, battered, beautiful, bent, brand-new, broad, broken, bulky, charming,
cheap, clumsy, crooked, curious, damp, delicate, dusty, elegant, enormous, expensive, faded,
familiar, fragile, genuine, gigantic, handsome, heavy, hollow, huge, ingenious, little, lovely,
massive, mysterious, narrow, noisy, odd, ordinary, peculiar, plain, polished, precious, quaint,
round, rusty, shabby, shallow, shiny, smooth, spare, square, stiff, sturdy, tall, thick, thin, tiny,
ugly, valuable, vast, weird, wonderful, worthless

comparative: bigger, brighter, cheaper, cleaner, darker, fresher, harder, heavier, lighter, longer,
louder, older, sharper, shorter, smoother, stronger, thicker, thinner, warmer, wider

colour: amber, beige, black, blue, bronze, brown, crimson, golden, green, grey, orange, pink,
purple, red, scarlet, silver, turquoise, violet, white, yellow

material: bamboo, brass, canvas, cardboard, clay, copper, cotton, glass, iron, ivory, leather,
marble, oak, paper, plaster, plastic, rubber, silk, steel, stone, velvet, wax, wicker, wooden,
woollen

thing: anchor, armchair, barrel, basket, bell, bench, blanket, boot, bottle, box, bridge, brush,
bucket, button, cabinet, candle, carpet, chain, chair, chest, clock, coat, coin, cradle, cup,
curtain, cushion, drawer, drum, engine, envelope, fence, flute, fountain, frame, gate, glove,
hammer, handle, harp, hat, jacket, jar, jug, kettle, key, kite, knife, ladder, lamp, lantern, lock,
map, mirror, mug, necklace, needle, notebook, oar, oven, parcel, pencil, piano, pillow, pipe,
pitcher, plough, pocket, puzzle, raft, ribbon, ring, rope, saddle, sail, saw, scarf, shelf, shield,
shovel, sofa, spoon, statue, stool, suitcase, sword, table, telescope, tent, toy, treasure, trunk,
umbrella, vase, violin, wagon, wallet, wheel, whistle, window

animal: badger, beaver, bull, camel, cat, cow, crow, dolphin, donkey, duck, eagle, falcon, fox,
giraffe, goat, hedgehog, heron, horse, jackal, kitten, lizard, monkey, otter, owl, parrot, penguin,
pigeon, pony, puppy, rabbit, raven, robin, seal, sparrow, squirrel, stork, swan, tortoise, turtle,
walrus, weasel, whale, wolf, zebra

animals: badgers, bees, butterflies, cats, chickens, cows, crows, dogs, dolphins, donkeys, ducks,
eagles, foxes, frogs, geese, goats, herons, horses, kittens, lambs, mice, moths, otters, owls, oxen,
parrots, penguins, pigeons, ponies, rabbits, salmon, seagulls, sheep, snails, sparrows, swans,
thrushes, tortoises, trout, turkeys, turtles, wolves

food: apple cake, barley soup, brown bread, butter, cabbage, chocolate, cinnamon, cold fish, cream,
cucumber, dark honey, fresh yoghurt, garlic, ginger, goat cheese, gooseberry jam, lemon, mashed
potato, mustard, nutmeg, olive oil, orange jelly, parsley, peach pie, pepper, porridge, pumpkin,
rhubarb, rice, roast chicken, salt, spinach, toast, tomato juice, vanilla, vinegar, walnut paste

where: above the chapel, across the valley, along the river, around the corner, at the airport, at
the edge of town, behind the old theatre, below the bridge, beside the fountain, between the towers,
by the harbour, down in the cellar, in front of the bank, in the attic, in the laboratory, in the
orchard, in the shadow of the church, in the village hall, inside the stable, near the junction,
next door, on the balcony, on the beach, on the far shore, on the top shelf, opposite the school,
outside the pharmacy, over the garage, under the stairs, underneath the table, upstairs

when: after breakfast, after the storm, at dawn, at half past four, at midnight, at noon, at the
weekend, before lunch, before the concert, during the holidays, early in the morning, in early
spring, in January, in the afternoon, late in the evening, on a cloudy Thursday, on Friday, on
Monday morning, on the first of June, on Wednesday night, once again, this Saturday, this year,
today, two days later, without delay

how: awkwardly, bravely, briefly, calmly, carefully, cautiously, cheerfully, eagerly, easily,
gently, gladly, gradually, happily, hastily, patiently, politely, quickly, quietly, roughly, slowly,
smoothly, softly, suddenly, thoroughly

weather: bitterly cold, bright and windy, calm and clear, cool and misty, dark and foggy, hot and
dusty, icy, mild, pleasantly warm, raining hard, snowing, stormy, sunny, very humid

town: Aberdeen, Athens, Bergen, Boston, Bristol, Cairo, Calcutta, Cardiff, Chicago, Cordoba, Dublin,
Durham, Exeter, Florence, Geneva, Glasgow, Havana, Helsinki, Jamaica, Kyoto, Lagos, Lisbon, Madrid,
Melbourne, Memphis, Montreal, Nairobi, Norwich, Ottawa, Oxford, Palermo, Quebec, Rotterdam, Seattle,
Sheffield, Sydney, Toronto, Utrecht, Venice, Vienna, Warsaw, York, Zanzibar

month: January, February, March, April, May, June, July, August, September, October, November,
December

ordinal: first, second, third, fourth, fifth, seventh, ninth, twelfth

small: two, three, four, five, six, seven, eight, nine, eleven, twelve

minutes: five past, ten past, a quarter past, twenty past, half past, twenty to, a quarter to, ten
to

the: the, this, that, your, our, another

verb: admire/admired, borrow/borrowed, bring/brought, bury/buried, buy/bought, carry/carried,
catch/caught, choose/chose, collect/collected, count/counted, cover/covered, deliver/delivered,
describe/described, discover/discovered, drop/dropped, enjoy/enjoyed, examine/examined, feed/fed,
fetch/fetched, find/found, follow/followed, guard/guarded, ignore/ignored, inspect/inspected,
leave/left, lose/lost, measure/measured, mention/mentioned, move/moved, notice/noticed,
paint/painted, photograph/photographed, point at/pointed at, pull/pulled, push/pushed,
remember/remembered, rescue/rescued, search for/searched for, sell/sold, sketch/sketched,
study/studied, throw away/threw away, touch/touched, trade/traded, wash/washed, watch/watched,
weigh/weighed, worry about/worried about
"""

_WORDS = {
    slot: tuple(" ".join(words.split()).split(", "))
    for slot, words in (entry.split(": ") for entry in _VOCABULARY.strip().split("\n\n"))
}
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=\*?([aeioAEIO]|ug|um))")
_STRESSED = 0.4  # of all sentences, at most: those that have a word so marked


def sentence(rng: np.random.Generator) -> str:
    """One sentence of 3 to 22 words, capitalised and punctuated, drawn from `rng`.

    No word of a list occurs twice in it. In some, one word is *stressed*; " | " is a pause. The
    templates allow more than 10^10 sentences.
    """
    used: set[str] = set()
    template = _TEMPLATES[rng.integers(len(_TEMPLATES))]
    slots = _SLOT.findall(template)
    stressed = int(rng.integers(len(slots))) if rng.random() < _STRESSED else -1
    if stressed >= 0 and slots[stressed].lower() in ("a", "the", "clock", "date"):
        stressed = -1
    words = [_fill(slot, rng, used) for slot in slots]
    if stressed >= 0:
        words[stressed] = f"*{words[stressed]}*"
    filling = iter(words)
    text = _ARTICLE.sub(r"\1n ", _SLOT.sub(lambda _: next(filling), template))
    first = 1 if text[0] == "*" else 0
    return text[:first] + text[first].upper() + text[first + 1 :]


def _fill(slot: str, rng: np.random.Generator, used: set[str]) -> str:
    """Words for a slot, none of them in `used`, where they are entered."""

    def draw(kind: str) -> str:
        words = [word for word in _WORDS[kind] if word not in used]
        used.add(word := words[rng.integers(len(words))])
        return word

    match slot.lower():
        case "a":
            words = "a"
        case "the":
            # Unlike other words, the plain article may be repeated.
            words = draw("the") if rng.random() < 0.3 else "the"
        case "number":
            words = str(rng.integers(13, 100))
        case "clock":
            words = f"{draw('minutes')} {draw('small')}"
        case "date":
            words = f"the {_ordinal(int(rng.integers(1, 31)))} of {draw('month')}"
        case "verb" | "past":
            words = draw("verb").split("/")[slot == "past"]
        case kind:
            words = draw(kind)
    return words[0].upper() + words[1:] if slot[0].isupper() else words


def _ordinal(day: int) -> str:
    unit = 0 if day in (11, 12, 13) else day % 10
    ending = {1: "st", 2: "nd", 3: "rd"}.get(unit, "th")
    return f"{day}{ending}"
