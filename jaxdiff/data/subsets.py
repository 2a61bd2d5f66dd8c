"""Named parts of a data set, chosen by caption."""

from collections.abc import Callable

_QUICKSTART = """
    red heart, orange heart, yellow heart, green heart, blue heart, light blue heart, purple heart, brown heart, black
    heart, grey heart, white heart, pink heart, red circle, orange circle, yellow circle, green circle, blue circle,
    purple circle, brown circle, black circle, white circle, hollow red circle, red square, orange square, yellow
    square, green square, blue square, purple square, brown square, black large square, white large square, black
    medium square, white medium square, black small square, white small square, black square button, white square
    button, large orange diamond, large blue diamond, small orange diamond, small blue diamond, red triangle pointed
    up, red triangle pointed down, green book, blue book, orange book, red apple, green apple, green salad, brown
    mushroom, red envelope, red paper lantern, white flag, black flag, black cat, black bird, white flower, leafy
    green, red question mark, white question mark, red exclamation mark, white exclamation mark, black nib,

    closed book, open book, books, notebook, broken heart, two hearts, growing heart, sparkling heart, heart suit,
    diamond suit, club suit, spade suit, check mark, cross mark, plus, minus, star, sun, crescent moon, full moon, new
    moon, cloud, rainbow, snowman, snowflake, droplet, fire, high voltage, umbrella, tornado,

    banana, grapes, lemon, lime, tangerine, pear, peach, cherries, strawberry, blueberries, pineapple, watermelon,
    melon, mango, coconut, kiwi fruit, avocado, tomato, eggplant, carrot, cucumber, potato, onion, mushroom, bread,
    egg, pizza, hamburger, cookie, doughnut, candy, lollipop, ice cream, french fries,

    grinning face, smiling face, frowning face, neutral face, crying face, angry face, sleeping face, winking face,
    thinking face, kissing face, alien, ghost, robot, skull,

    cat, dog, bird, fish, cow face, pig face, mouse face, rabbit face, tiger face, monkey face, horse face, dog face,
    cat face, bear, panda, koala, lion, fox, frog, butterfly, lady beetle, snail, turtle, tulip, sunflower, cactus,

    balloon, soccer ball, basketball, baseball, bell, key, crown, hammer, house, sailboat, bus, airplane, rocket,
    television
"""

QUICKSTART = frozenset(" ".join(_QUICKSTART.split()).split(", "))
"""181 names in short and clear words: the 63 that hold a colour; signs, weather; food; faces; animals; things."""

SUBSETS: dict[str, Callable[[str], bool]] = {
    "all": lambda caption: True,
    "plain": lambda caption: "skin tone" not in caption and not caption.startswith("flag of "),
    "quickstart": QUICKSTART.__contains__,
}
