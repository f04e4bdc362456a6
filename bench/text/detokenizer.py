"""WikiText's spaced-out text put together again, as lm-eval's wikitext task does it."""

import re

# Applied one after the other over the whole page. Their order and their quirks belong to the
# published numbers (the second never matches, a lone N becomes 1): they are the rules of lm-eval
# 0.4.13, lm_eval/tasks/wikitext/preprocess_wikitext.py, which took them from Megatron-LM.
_RULES = (
    (r"s '", "s'"),
    (r"/' [0-9]/", "/'[0-9]/"),
    (r" @-@ ", "-"),
    (r" @,@ ", ","),
    (r" @\.@ ", "."),
    (r" : ", ": "),
    (r" ; ", "; "),
    (r" \. ", ". "),
    (r" ! ", "! "),
    (r" \? ", "? "),
    (r" , ", ", "),
    (r"\(\s*([^\)]*?)\s*\)", r"(\1)"),
    (r"\[\s*([^\]]*?)\s*\]", r"[\1]"),
    (r"{\s*([^}]*?)\s*}", r"{\1}"),
    (r'"\s*([^"]*?)\s*"', r'"\1"'),
    (r"'\s*([^']*?)\s*'", r"'\1'"),
    (r"= = = =", "===="),
    (r"= = =", "==="),
    (r"= =", "=="),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (r" \n", "\n"),
    (r"\n ", "\n"),
    (r" N ", " 1 "),
    (r" 's", "'s"),
)


def detokenize(page: str) -> str:
    r"""The page as it may have been written.

    >>> detokenize(" = Title = \n \n The well @-@ known ( old ) house , built in 1 @,@ 900 . \n")
    ' = Title =\n\nThe well-known (old) house, built in 1,900.\n'
    """
    for pattern, replacement in _RULES:
        page = re.sub(pattern, replacement, page)
    return page
