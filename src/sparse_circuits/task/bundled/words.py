"""Word lists that the bundled tasks and the bundled model's language share.

Every word stands in running text with a space before it. Nouns and verbs come as (singular, plural) pairs.
"""

Forms = tuple[tuple[str, str], ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _forms(text: str) -> Forms:
    """Pairs from words like "dog" (a regular plural) or "man/men"."""
    pairs = (word.split("/") if "/" in word else (word, word + "s") for word in text.split())
    return tuple((singular, plural) for singular, plural in pairs)


FEMALE_NAMES = _words("""
    Alicia Allison Amanda Amber Amy Andrea Angela Brittany Christina Christine Crystal Danielle Elizabeth Emily Erica
    Erin Heather Jennifer Jessica Katherine Katie Kimberly Kristen Laura Lauren Lisa Mary Megan Melissa Michelle Nicole
    Rachel Rebecca Samantha Sara Sarah Stephanie Tiffany Vanessa Anna Alice Jane Kate Susan Linda Karen Julia Emma
    Olivia Sophie Claire Helen Ruth Diana Martha
""")
MALE_NAMES = _words("""
    Aaron Adam Alexander Andrew Anthony Benjamin Bradley Brandon Brian Bryan Charles Christopher Cody Daniel David
    Dustin Eric Gregory Jacob James Jason Jeffrey Jeremy John Jonathan Jose Joseph Joshua Justin Kenneth Kevin Kyle
    Mark Matthew Michael Nathan Nicholas Patrick Paul Richard Robert Ryan Samuel Scott Sean Stephen Steven Thomas
    Timothy Travis Tyler William Peter George Henry Simon Martin Frank Jack Luke Edward Arthur Philip Victor
""")
# Names that either gender bears: never the subject of a pronoun.
NEUTRAL_NAMES = _words("Ashley Courtney Jamie Jesse Kelly Lindsay Lindsey Shannon")
NAMES = FEMALE_NAMES + MALE_NAMES + NEUTRAL_NAMES

# People who are the subjects of the agreement tasks. The bundled model never saw one of them right after "The".
SUBJECTS = _forms("""
    athlete aunt boy carpenter doctor farmer father friend girl guy kid lawyer man/men mother poet singer teacher uncle
    victim woman/women
""")
# People inside relative clauses.
INNER_SUBJECTS = _forms("architect assistant chef dancer driver executive guard minister parent skater")
OTHER_PEOPLE = _forms("""
    nurse baker soldier king queen neighbor student artist writer pilot sailor painter judge banker hunter priest clerk
    waiter cousin brother sister captain scientist gardener
""")
ATTRACTORS = _forms("bike car cat chair desk dog table tree truck window")
OTHER_THINGS = _forms("""
    horse bird boat door lamp box/boxes wall house/houses garden road flower stone book picture train bus/buses
""")
PREPOSITIONS = _words("behind beside near above below under across")

VERBS = (("is", "are"), ("has", "have"), ("does", "do"), ("goes", "go"), ("was", "were"))
TRANSITIVE_VERBS = tuple(
    (plural + ("es" if plural.endswith("ch") else "s"), plural)
    for plural in _words("like know see help love admire follow visit hate trust watch call thank need")
)

PLACES = _words("""
    office house restaurant hospital school station garden store park museum library market beach church bank hotel
    airport farm kitchen theater bridge river village castle harbor stadium bakery forest
""")
# Things to give; all go with "a".
OBJECTS = _words("""
    basketball necklace ring drink computer bone kiss snack book ball letter gift flower key map coin watch phone cake
    pencil hat ticket picture camera guitar bottle sandwich scarf lamp toy
""")

# What lasts for years.
EVENTS = _words("""
    attack campaign case contact contract deal development effect employment existence fall growth impact marriage
    operation order plan practice process program progress project quest riot rise rule shift study test testing tests
    trial trip work
""")
OTHER_EVENTS = _words("""
    war siege journey reign peace festival debate treaty strike voyage trade union crisis search famine drought revolt
    mission tour school
""")
CENTURIES = _words("11 12 13 14 15 16 17")
YEARS = tuple(f"{year:02d}" for year in range(2, 99))  # start years
TWO_DIGITS = tuple(f"{year:02d}" for year in range(100))

# Plain words for random sequences.
PLAIN_WORDS = _words("""
    red blue green yellow white black brown gray small big old new young long short hot cold warm dark light bread milk
    cheese rice fish meat soup salt sugar apple water tea coffee cat dog horse bird cow pig sheep mouse lion bear sun
    moon star sky rain snow wind cloud fire ice sea lake hill road stone wood gold silver iron glass paper door wall
    roof floor bed chair desk table box cup plate knife fork spoon hand foot head face eye ear nose arm leg heart
    morning evening night day week month year spring summer winter north south east west king queen music song dance
    game story
""")
