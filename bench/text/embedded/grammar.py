"""The grammar of the stories: data only, read by `bench.text.embedded.corpus`.

Each rule is a tuple of options, listed from common to rare; an option is literal text with two
kinds of holes:

* ``[rule]`` is filled with an option of that rule, chosen at random;
* ``{rule}`` is filled with the word last chosen from that rule.

Holes nest: once ``[place]`` became "harbor", ``[thing of {place}]`` is a hole for the rule "thing
of harbor". So the first sentences of a story decide its later names, pronouns and nouns, and a
model has to look back for them. What "hero of woman" chose is remembered as ``{hero}``. A hole has
its leading space from the words that fill it.

The options of one rule must begin with different tokens: then the text reveals its derivation.
"""

SENTENCES: dict[str, tuple[str, ...]] = {
    "story": ("[opening][portrait][meeting][morning]",),
    "opening": (
        "One [weather] [day] a [trait] [kind][arrival]",
        "Last [day] a [trait] [kind][arrival]",
        "Once a [trait] [kind][arrival]",
    ),
    "arrival": (" named [hero of {kind}] [slowly] [came] to the [adjective] [place].",),
    "portrait": (
        " [She of {kind}] was a [mood] [job] with a [adjective] [color] [item].",
        " {hero} was a [mood] [job] and [wore] a [adjective] [color] [item].",
    ),
    "meeting": (
        " [Her of {kind}] [relation] [friend] [act]",
        " [friend], [her of {kind}] [relation], [act]",
    ),
    "morning": (
        " First [clause][then noon]",
        " Soon [clause][then noon]",
        " In the morning [clause][then noon]",
    ),
    "then noon": ("[noon]", "[sentence][noon]"),
    "noon": (
        " Then [clause][then evening]",
        " At noon [clause][then evening]",
        " After lunch [clause][then evening]",
    ),
    "then evening": ("[evening]", "[sentence][evening]"),
    "evening": (
        " Later [clause][night]",
        " Finally [clause][night]",
        " Before dark [clause][night]",
    ),
    "night": (
        " At last {hero} [slowly] [left] the {place} with {friend}.\n",
        " That night {friend} [slowly] [kept] the {item}.\n",
    ),
    "sentence": (
        " The[scene]",
        " {hero}[does]",
        " {friend}[does]",
        " [She of {kind}][does]",
        " They[do]",
        " [Many] [things of {place}] were [state]",
        " [Every] [thing of {place}] was [state]",
    ),
    "clause": (
        " the[scene]",
        " {hero}[does]",
        " {friend}[does]",
        " [she of {kind}][does]",
        " they[do]",
    ),
    "scene": (
        " [adjective][subject]",
        "[subject]",
        " {item}[is]",
    ),
    "subject": (" [thing of {place}][is]", " [things of {place}][are]"),
    "is": (" [near] the[noun] was [state]", " was [state]"),
    "are": (" [near] the[noun] were [state]", " were [state]"),
    "does": (" [act]", " [slowly] [act]", " was [feeling]"),
    "do": (" [act]", " [slowly] [act]", " were [feeling]"),
    "state": (" [adjective][and more]", " [very] [adjective][and more]"),
    "and more": ("[end]", " and [adjective][end]"),
    "feeling": (" [emotion][end]", " [very] [emotion][end]"),
    "act": (
        "[saw] [object][end]",
        "[went] [toward] [object][end]",
        "[spoke] [near] [object][end]",
    ),
    "object": (
        " the[noun]",
        " a [adjective] [thing of {place}]",
        " [many] [adjective] [things of {place}]",
        " [her of {kind}] {item}",
    ),
    "noun": (" [adjective][plain noun]", "[plain noun]", " {item}"),
    "plain noun": (" [thing of {place}]", " [things of {place}]", " [color][bare noun]"),
    "bare noun": (" [thing of {place}]", " [things of {place}]"),
    "end": (" [near] [object].", " [slowly].", ".", " for [two] [hours]."),
}

WORDS = {
    "weather": "rainy windy sunny cold foggy snowy stormy warm",
    "day": "Monday Sunday Friday Tuesday Saturday Thursday Wednesday",
    "trait": "young tall clever gentle shy friendly short rich kind polite",
    "kind": "woman man",
    "hero of woman": "Anna Clara Emma Grace Helen Julia Laura Maria Nora Rosa Sarah Vera",
    "hero of man": "Adam Daniel Felix Henry Jacob Leo Martin Oscar Peter Robert Samuel Victor",
    "She of woman": "She",
    "She of man": "He",
    "she of woman": "she",
    "she of man": "he",
    "Her of woman": "Her",
    "Her of man": "His",
    "her of woman": "her",
    "her of man": "his",
    "came": "came walked hurried returned rode drove ran",
    "mood": "happy tired lonely curious hungry proud sad brave nervous cheerful bored thirsty",
    "wore": "carried brought had bought found",
    "color": "red blue green white black yellow brown pink",
    "item": "basket letter key box hat lamp bag book cake map bell cup drum ball",
    "relation": "friend neighbor cousin partner helper guest student",
    "friend": "Robin Alex Charlie Jamie Kim Morgan Sasha Taylor Quinn Casey Jordan Lee Avery Riley",
    "left": "left saw painted missed loved",
    "kept": "kept found sold hid cleaned took",
    "Many": "Many Some Two Three Several Few",
    "many": "many some two three several few",
    "Every": "Every Each One",
    "near": "near behind beside under above below with without",
    "very": "very always rather never almost quite often suddenly",
    "emotion": "glad angry afraid calm surprised silent worried lost relieved puzzled",
    "saw": (
        "saw found noticed watched painted admired counted described followed remembered dropped"
        " used opened held cleaned repaired hid lifted borrowed carried moved touched wanted sold"
    ),
    "went": (
        "went ran walked climbed wandered raced crept marched danced jumped turned pointed crawled"
    ),
    "toward": "to toward around past into across",
    "spoke": (
        "spoke talked dreamed sang laughed rested waited slept sat stood worked played smiled wept"
    ),
    "slowly": (
        "slowly quietly again carefully gladly quickly often twice softly boldly gently"
        " calmly proudly eagerly"
    ),
    "two": "two three five ten six four seven twenty nine eight",
    "hours": "hours minutes days",
    "adjective": (
        "small large clean little dark big wet heavy dirty broken bright strange quiet beautiful"
        " wild famous dry new safe dusty hidden tiny ready shiny rusty wooden hot golden frozen"
        " narrow crowded round pleasant crooked different pretty dangerous plain perfect simple"
        " noisy fine soft grand lovely"
    ),
    "job": "baker sailor painter teacher doctor farmer tailor carpenter musician writer",
}

THINGS = {
    "harbor": "boat net anchor sail gull crate rope lantern crab pier whale captain",
    "market": "stall apple melon coin carpet barrel egg onion merchant spice lemon scale",
    "forest": "tree owl root trail mushroom acorn squirrel nest fern bear beetle hunter",
    "castle": "tower knight banner gate throne shield horn jewel crown moat king dungeon",
    "farm": "cow barn fence plow hen tractor goat field pumpkin pig turnip horse",
    "school": "desk pupil globe lesson poem window bench picture blackboard riddle song chair",
    "garden": "rose bee hedge tulip fountain statue seed snail pond worm orchid flower",
    "station": "train ticket clock signal platform porter wagon whistle poster engine track tunnel",
    "museum": "painting vase mask fossil guard relic dagger sculpture portrait skeleton helmet urn",
}
"""What there is at each place; each noun makes its plural with an "s"."""
