"""The words of the template teacher: kinds of harm, purposes, and the phrasings it chooses from.

A step is one choice per slot, joined by a blank. `{a}` and `{b}` are quotes of the exchange, `{alarm}` a quote that
only sounds harmful, `{shape}` what the text looks like, `{kind}` the kind of harm, `{purpose}` what is wanted.
"""

from __future__ import annotations

import re

Slots = tuple[tuple[str, ...], ...]
Table = tuple[tuple[str, re.Pattern[str]], ...]


def _table(rows: str) -> Table:
    """Parse one `name: words` per line; a line that starts with `|` continues the one before."""
    lines = re.sub(r"\n\s*\|", "|", rows.strip()).splitlines()
    pairs = [line.split(": ", 1) for line in lines]
    return tuple((name.strip(), re.compile(pattern, re.I)) for name, pattern in pairs)


def _slots(text: str) -> Slots:
    """Slots are separated by an empty line, the choices of a slot by `|`."""
    return tuple(tuple(" ".join(choice.split()) for choice in slot.split("|")) for slot in text.strip().split("\n\n"))


KINDS: Table = _table(
    r"""
    the sexual abuse of minors: child(ren)?[ _]?(porn|sex|sexual)|\bminors?\b.{0,40}sex|pedo|csam|\bcse\b|harm_child
    self-harm: suicid|self[ -]?harm|kill myself|hurt(ing)? myself|cut(ting)? myself|anorex|starv(e|ing) myself
        |\bssh\b|eating disorder
    weapons or mass harm: bomb|explo[ds]|weapon|\bguns?\b|firearm|grenade|nerve agent|toxin|anthrax|nuclear|bioweapon
        |\bcbrn\b|\biwp\b|\bidw\b
    terrorism or extremism: terror|extremis|jihad|radicali[sz]|\bisis\b|recruit.{0,30}(militant|fighter)
    hate or discrimination: hate|hateful|racis|racial|discriminat|stereotyp|slur|sexis|homophob|bigot|biased
        |\bbias\b|\bhte\b|derog_|dehum|antisemit|islamophob|muslims?\b|\bjews?\b|black people|immigrants?\b
        |women are|gays?\b|transgender|identity|I-CoNa
    sexual content: sexual|\bsex\b|porn|nude|naked|erotic|\brape|fetish|\bsxc|\bsrc\b|prostitut|adult_content|horny
        |orgasm
    drugs or controlled substances: \bdrugs?\b|cocaine|\bmeth\b|heroin|marijuana|substances?\b|fentanyl|opioid
        |narcotic|smoking|alcohol abuse
    cybercrime: hack|malware|phish|\bvirus|ransomware|ddos|exploit|cyber|password|keylog|backdoor|spyware|botnet
        |sql injection
    fraud or deception: fraud|scam|counterfeit|launder|\bfake\b|forg(e|ing|ery)|tax evasion|evad(e|ing) tax|brib
        |impersonat|deceiv|deception|ponzi|insider trading|embezzl|plagiar|cheat
    a breach of privacy: privacy|\bprv\b|stalk|doxx?|personal (information|data)|home address
        |track(ing)? (someone|some one|her|him|my)|\bspy|eavesdrop|social security|identity theft
        |without (her|his|their) (knowing|knowledge|consent)
    violence: violen|\bkill|murder|assault|attack|tortur|\bstab|shoot|\bvcr\b|\bhurt|beat (up|him|her|them)|kidnap
        |strangl|physical_?harm|threat|massacre|assassin|cannibal
    misinformation: misinform|disinform|fake news|conspira|propaganda|rumou?r|election|hoax|vaccine|political
    harassment or insult: harass|bully|bullie|insult|offensive|offending|defam|\bdfm\b|humiliat|profan|toxic|mock
        |troll|\bstupid\b|idiot|\bfuck|\bbitch|\bshit
    unsafe medical or expert advice: AMA principle|unauthori[sz]ed expertise|tailored|unlicensed|financial_advice
        |patient|diagnos|\bdos(e|age)\b|medication|prescri|cure\b|\bspc_
    physical danger: risk ignorance|physical|safety|dangerous|poison|swallow|\bburn|choke|electrocut|drown
        |\bbleach\b
    cruelty to animals: animal|cockfight|dog ?fight|poach|\bpets?\b
    theft or other crime: steal|stole|theft|\brob\b|robbery|burglar|shoplift|crime|criminal|illegal|smuggl|traffick
        |get away with|break(ing)? into|vandal|arson|\bncr\b|\bipv\b|piracy|pirated|copyright|gambling
    """
)
"""Kind of harm and how its category or text reads; in a tie the first wins, so the order is from special to general."""

OTHER_KIND = "harm to others"

PURPOSES: Table = _table(
    r"""
    help with computers: \b(code|python|javascript|function|program|script|java|linux|server|software|files?|sql)\b
    play in a role: \b(act as|you are now|role ?play|imagine you|pretend)\b
    a piece of writing: \b(write|story|poem|essay|letter|email|rewrite|summari[sz]e|paragraph|lyrics|dialogue)\b
    health information: \b(health|symptoms?|treatments?|disease|doctor|pain|anxiety|depress\w*|sleep|medicine)\b
    help with numbers: \b(calculate|how many|how much|percent|equation|solve|math|sum|average)\b
    an everyday errand: \b(remind|alarm|play|turn|weather|order|book|card|account|bank|transfer|schedule|recipe|cook)\b
    practical advice: \b(how (do|can|to|should)|should i|tips|best way|recommend|advice|help me)\b
    plain information: \b(what|who|when|where|why|which|explain|describe|list|name|is|are|does|did|was)\b
    """
)

OTHER_PURPOSE = "an ordinary answer"

REFUSAL = re.compile(
    r"i(?:['’]m| am)(?: really| very| so)? sorry"
    r"|(?:i|we) (?:can(?:['’]t|not)|could not|couldn['’]t|won['’]t|will not|do not|don['’]t|must decline)(?: \w+){1,2}"
    r"|i(?:['’]m| am) (?:not able|unable|not going|not programmed|not comfortable)(?: to)?(?: \w+)?"
    r"|unable to \w+|as an ai(?: language model)?|not (?:appropriate|ethical|acceptable)|against (?:my|the) \w+"
    r"|it is (?:illegal|unethical|wrong)|i refuse|i must decline|sorry",
    re.I,
)
"""How a refusal usually reads; the first match is what the trace quotes."""

ALARMING = re.compile(
    r"\b(?:kill|murder|shoot|attack|bomb|explod|hack|steal|weapon|gun|stab|poison|drug|destroy|execut|abus|suicid|rape|fight"
    r"|crime|criminal|illegal|scam|fraud|virus|porn|dead|death|hate|hurt|punch|knife|burn|smuggl|rob|thief|torture|slaughter"
    r"|assassinat|exploit|inject|crack|cheat|lie|fake|naked|nude|sex|terror|threat|violen|blood|war|suffocat|strangl"
    r")(?:s|ed|e|es|er|ers|ing|ion|ions|ive|ual|y|ly|t|ist|ists|al|ious|ity)*\b",
    re.I,
)
"""Words that sound dangerous in any context."""

REQUEST_HARMFUL = (
    _slots(
        """
        The {shape} turns on {a}. | At the centre of the {shape} stands {a}. | What the {shape} is after is {a}. | The
        decisive words of the {shape} are {a}. | In the {shape}, {a} stands out. | The {shape} comes down to {a}. | The
        {shape} asks about {a}. | Reading the {shape}, {a} matters most.

        The kind of harm is {kind}.
        """
    ),
    _slots(
        """
        {b} shows | The words {b} suggest | Together with {b} it means | With {b} beside it, it is plain | Weighing the
        intent, {b} tells | Near it stands {b}, a sign | {b} makes it clear | From {b} it follows

        that somebody could be hurt. | that the aim is to do harm. | that an answer would serve that aim. | that someone
        would be put at risk. | that no good purpose explains it. | that the wish is not innocent. | that help would
        make it worse. | that others would pay for it.
        """
    ),
    _slots(
        """
        Whatever frame is put around it, | No harmless purpose is given, | The risk outweighs any benefit, | It should
        not be helped along, | A careful helper would stop here, | The intent weighs more than the wording, | Nothing in
        it takes the harm away, | Even a partial answer could do damage,

        so the request is harmful.
        """
    ),
)

REQUEST_UNHARMFUL = (
    _slots(
        """
        The {shape} is about {a}; | The {shape} deals with {a}; | At the centre of the {shape} stands {a}; | The {shape}
        mentions {a}; | The decisive words of the {shape} are {a}; | In the {shape}, {a} stands out; | The {shape} comes
        down to {a}; | Reading the {shape}, {a} matters most;

        what is wanted is {purpose}. | the purpose is {purpose}. | it calls for {purpose}. | the user wants {purpose}. |
        the aim is {purpose}. | it is a case of {purpose}.
        """
    ),
    _slots(
        """
        {b} carries | The words {b} show | Weighing the intent, {b} holds | Near {b} there is | In {b} there is | {b}
        comes with | Around {b} I see | Even {b} brings

        no wish to hurt anyone. | no sign of a harmful aim. | nothing that asks for harm. | no reason for alarm. | no
        risk to other people. | no target and no victim. | nothing against the law. | no danger in this setting.
        """
    ),
    _slots(
        """
        An answer is safe to give, | There is no harm in it, | It can be helped along, | Nobody is put at risk, | The
        purpose is benign, | An answer would only help, | The intent is innocent, | It is an ordinary wish,

        so the request is unharmful.
        """
    ),
)

REPLY_REFUSAL = (
    _slots(
        """
        With {a} the assistant | By {a} the {shape} | The words {a} show that it | {a} tells that the assistant | Saying
        {a}, the {shape} | At {a} the assistant

        turns the user down, | holds the content back, | declines the task, | does not do what was asked, | leaves the
        task undone, | gives no real answer,

        so the reply is a refusal.
        """
    ),
)

REPLY_COMPLIANCE = (
    _slots(
        """
        With {a} the assistant | By {a} the {shape} | The words {a} show that it | {a} tells that the assistant | Saying
        {a}, the {shape} | At {a} the assistant

        goes along with the task, | answers the user, | delivers what was asked, | takes up the request, | does not turn
        the user down, | engages with the question,

        so the reply is compliance.
        """
    ),
)

REPLY_HARMFUL = (
    _slots(
        """
        The {shape} contains {a}. | {a} stands out in the {shape}. | The {shape} leans on {a}. | The decisive words of
        the {shape} are {a}. | In the {shape}, {a} matters most. | The {shape} goes as far as {a}. | The {shape} offers
        {a}. | What weighs in the {shape} is {a}.

        The kind of harm is {kind}.
        """
    ),
    _slots(
        """
        With {b} it | Through {b} it | Its {b} | The part {b} | Adding {b}, it | Together with {b} it

        could be used against people, | makes harm easier, | spreads something that hurts, | does nothing to warn, |
        puts someone at risk, | supports a bad aim, | goes beyond what is safe, | may lead to damage,

        so the reply is harmful.
        """
    ),
)

REPLY_UNHARMFUL = (
    _slots(
        """
        The {shape} contains {a}, | {a} stands out in the {shape}, | The {shape} stays with {a}, | The decisive words of
        the {shape} are {a}, | In the {shape}, {a} matters most, | The {shape} goes no further than {a}, | The {shape}
        offers {a}, | What weighs in the {shape} is {a},

        which helps nobody do harm. | and that is safe to read. | which gives no means to hurt. | and it raises no
        concern. | which is ordinary content. | and no one is attacked.
        """
    ),
    _slots(
        """
        With {b} it | Through {b} it | Its {b} | The part {b} | Adding {b}, it | Together with {b} it

        stays within bounds, | adds no danger, | supports no bad aim, | hurts nobody, | keeps people safe, | leaves no
        risk, | can be shown to anyone, | does no damage,

        so the reply is unharmful.
        """
    ),
)

ASKED = _slots(
    """
    The user starts with {asked}. | The request begins with {asked}. | What was asked opens with {asked}. | The user's
    words {asked} set the task. | First comes {asked}. | The task opens with {asked}.
    """
)
"""The step before the refusal, where refusal is the only task."""

REQUEST_ALARMING = _slots(
    """
    {alarm} may sound dangerous, | {alarm} could worry a reader, | Taken alone {alarm} might alarm, | {alarm} is a
    strong word, | Out of context {alarm} seems risky, | One may stop at {alarm}, | {alarm} needs a second look, |
    {alarm} can mean harm elsewhere,

    but here it belongs to {purpose}. | but the aim is {purpose}. | but nobody is to be hurt. | but no harm is asked
    for. | but the setting is harmless. | but it has no victim here. | but the intent is benign. | but the purpose
    is innocent.
    """
)
"""The second step where a benign request holds words that mostly occur in harmful ones."""
