//! The rules of the tokenizer: expressions over bytes, one byte a character (see [`super::classes`]).
//!
//! At every place the rule with the longest match wins, what it looks ahead to counting in; the earlier rule wins a
//! tie. The rules were written from a description of the reference and from its answers to probes.

/// What becomes of the matched text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing: a separator.
    Skip,
    /// One token, as it stands.
    Keep,
    /// One token without soft hyphens.
    Word,
    /// One token of the first so many characters; the rest is read again.
    First(usize),
    /// One token of all but the last so many characters; the rest is read again.
    Without(usize),
    /// All of it is a token, but the last character is read again (the dot that ends abbreviation and sentence).
    LastAgain,
    /// This token instead.
    Put(&'static str),
    /// One token, its blanks made no-break spaces, its round brackets spelled out.
    Joined,
    /// One token, its blanks made no-break spaces.
    Markup,
    /// One token, its apostrophe made straight.
    Apostrophe,
    /// One token of several quotes, each spelled in ASCII.
    Quotes,
    /// A fraction of one character, spelled in ASCII.
    Fraction,
    /// One token, its currency sign made a dollar sign.
    Currency,
}

/// How much of the match is only looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ahead {
    /// Nothing, or so many characters.
    Chars(usize),
    /// From the last apostrophe on, and one more character before it if true.
    Apostrophe { and_one: bool },
    /// What follows the first dot after which this expression's context starts: everything after the last dot.
    AfterDot,
}

pub(super) struct Rule {
    pub expression: String,
    pub ahead: Ahead,
    pub action: Action,
}

/// Names used inside the expressions, expanded in this order.
const NAMES: &[(&str, &str)] = &[
    (
        "{ABBREVIATION}",
        r"(?:(?i:al|co|ct|ga|jr|ky|md|mo|rd|rt|sq|sr|va|vt|ala|apr|aug|bhd|cos|dak|dec|esq|est|etc|ext|feb|fla|fri|inc|ind|jan|jul|jun|kan|ltd|mar|mon|neb|nev|nov|oct|plc|sep|seq|sys|tel|thu|tue|wed|wis|wyo|ariz|assn|bldg|blvd|bros|colo|conn|corp|intl|kans|mich|minn|mont|okla|penn|sept|tenn|tues|univ|wisc|calif|bancorp|thurs|p?pte?y?s?|ed\.d|ph\.d)|A[zZ]|L[aA]|P[aA]|A[rR][kK]|D[eE][lL]|I[lL][lL]|O[rR][eE]|T[eE][xX]|M[aA][sS][sS]|M[iI][sS][sS]|W[aA][sS][hH])",
    ),
    (
        "{TITLE}",
        r"(?:(?i:cf|drs?|ft|lt|mrs?|ms|mt|ph|st|vs|wm|adj|adm|adv|ave|cie|col|cpl|det|ens|gen|govs?|hon|jos|maj|mme|pfc|pvt|reps?|rev|sens?|sfc|sgt|spc|ste|alex|asst|atty|brig|capt|c?omdr|cmdr|dept|elec|insp|invt|mlle|msgr|natl|pres|profs?|supt|assoc|messrs|lieut|treas|a\.k\.a)|[Mm][ft]g)",
    ),
    ("{NUMBERED}", r"(?i:ca|nos?|op|pp|art|figs?|prop)"),
    (
        "{OPENER}",
        r"(?:A(?i:bout|ccording|dditionally|fter|n|s|t)?|B(?i:ut)|E(?i:arlier)|H(?i:e|er|ere|owever)|I(?i:f|n|t)|L(?i:ast)|M(?i:any|ore|r\.|s\.)|N(?i:ow)|O(?i:nce|ne|ther|ur)|S(?i:he|ince|o|ome|uch)|T(?i:hat|he|heir|hen|here|hese|hey|his)|W(?i:e|hen|hile|hat)|Y(?i:et|ou))",
    ),
    ("{ENTITY}", r"&[aeiouAEIOU](?:acute|grave|uml);"),
    (
        "{MARKUP}",
        r#"(?:<(?:/?[A-Za-z][A-Za-z0-9_:.-]*[ \t]*/?[ \t]*|[A-Za-z][A-Za-z0-9_:.-]*(?:[ \t]+[A-Za-z][A-Za-z0-9_:.-]*(?:[ \t]*=[ \t]*(?:'[^'\n]*'|"[^"\n]*"))?)*[ \t]*/?[ \t]*|[!?][A-Za-z-][^>\n]*)>)"#,
    ),
    ("{ANYBLANK}", r"[ \t\n\x85]"),
    ("{BLANK}", r"[ \t\x85]"),
    ("{APO}", r"(?:['\x87]|&apos;)"),
    ("{APOTICK}", r"(?:['\x87`\x88]|&apos;)"),
    ("{PIECE}", r"(?:[dDoOlL]{APOTICK}(?:{LETTER}|{DIGIT}))?(?:{LETTER}|{DIGIT})+"),
    ("{SOFTPIECE}", r"(?:[dDoOlL]{APOTICK}(?:{LETTER}|{DIGIT}))?(?:{LETTER}|\x8f|{DIGIT})+"),
    ("{DIGIT}", r"[0-9\x83]"),
    ("{WORDLETTER}", r"(?:[A-Za-z\x80\x81\x82\x8f]|{ENTITY_}"),
    ("{ENTITY_}", r"&[aeiouAEIOU](?:acute|grave|uml);)"),
    ("{LETTER}", r"[A-Za-z\x80\x81]"),
    ("{NOTURL}", r#" \t\n"<>|(){}"#),
];

fn expand(expression: &str) -> String {
    let mut expanded = expression.to_owned();
    // Some names hold others; the list is in an order in which a few rounds suffice.
    for _ in 0..3 {
        for (name, meaning) in NAMES {
            expanded = expanded.replace(name, meaning);
        }
    }
    expanded
}

/// All rules, the earlier one winning a tie.
pub(super) fn rules() -> Vec<Rule> {
    use Action::{
        Apostrophe, Currency, First, Fraction, Joined, Keep, LastAgain, Markup, Put, Quotes, Skip, Without, Word,
    };
    use Ahead::Chars;
    const WORD: &str = r"{WORDLETTER}(?:{WORDLETTER}|{DIGIT})*(?:[.!?]{WORDLETTER}(?:{WORDLETTER}|{DIGIT})*)*";
    const THING: &str = r"{PIECE}(?:[_\x8e]{PIECE}|-{SOFTPIECE})*";
    const ACRONYM: &str = r"[A-Za-z](?:\.[A-Za-z])+";
    const DASHED: &str = r"[A-Za-z0-9][A-Za-z0-9.,]*(?:-(?:[A-Za-z0-9]+|[A-Za-z](?:\.[A-Za-z])+\.))+";
    const AND: &str = r"[A-Z]+(?:(?:[+&]|&amp;)[A-Z]+)+";
    let slash_part = r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}";
    let list: Vec<(String, Ahead, Action)> = vec![
        // Contractions and words that fall in two.
        (r"(?i:cannot)".into(), Chars(0), First(3)),
        (r"(?i:gonna|gotta|lemme|gimme|wanna|'tis)".into(), Chars(0), Without(2)),
        (r"(?i:'twas)".into(), Chars(0), First(2)),
        // Markup.
        (r"{MARKUP}".into(), Chars(0), Markup),
        // Dashes and entities that stand for characters.
        (r"&(?:MD|mdash|ndash);|\x8c".into(), Chars(0), Put("--")),
        (r"(?:&nbsp;|&#160;)".into(), Chars(0), Skip),
        (r"&amp;".into(), Chars(0), Put("&")),
        (r"&lt;".into(), Chars(0), Put("<")),
        (r"&gt;".into(), Chars(0), Put(">")),
        (r"&(?:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);".into(), Chars(0), Keep),
        // Words before their contracted ends.
        (format!(r"{WORD}{{APO}}(?i:[msd]|re|ve|ll)"), Ahead::Apostrophe { and_one: false }, Word),
        (
            r"[A-Za-z]*[A-MO-Za-mo-z][nN]{APOTICK}[tT]".into(),
            Ahead::Apostrophe { and_one: true },
            Word,
        ),
        // Words with an apostrophe inside.
        (
            r"{APO}[nN]{APO}?|[lLdDjJ]{APO}|(?i:dunkin{APOTICK}|somethin{APOTICK}|ol{APOTICK}|{APOTICK}em|c{APOTICK}mon|{APOTICK}till?|{APOTICK}cause|cont{APOTICK}d\.?|nor{APOTICK}easter|e{APOTICK}er|s{APOTICK}mores|ev{APOTICK}ry|li{APOTICK}l|nat{APOTICK}l|cap{APOTICK}n)|{APOTICK}[2-9]0s|[A-HJ-XZn]{APOTICK}{LETTER}{2}{LETTER}*|{LETTER}+[aeiouyAEIOUY]{APOTICK}[aeiouA-Z]{LETTER}*".into(),
            Chars(0),
            Keep,
        ),
        (r"[yY]{APO}{LETTER}".into(), Chars(1), Keep),
        (r"[nN]{APOTICK}[tT]".into(), Chars(0), Apostrophe),
        (r"{APO}(?i:[msd]|re|ve|ll)[^A-Za-z]".into(), Chars(1), Apostrophe),
        // Addresses.
        (r"(?i:https?://)[^{NOTURL}]+[^{NOTURL}.!?,-]".into(), Chars(0), Keep),
        (
r#"(?:www\.(?:[^ \t\n\x85"<>|.!?(){},]+\.)+[a-zA-Z]{2,4}|(?:[#%&*+a-z~\x80-\x84\x86-\xff]+\.)+(?i:com|net|org|edu))(?:/[^ \t\n"<>|()]+[^{NOTURL}.!?,-])?"#.into(),
            Chars(0),
            Keep,
        ),
        (
            r#"(?:&lt;|<)?[a-zA-Z0-9][^ \t\n\x85"<>|(){}]*@(?:[^ \t\n\x85"<>|(){}.]+\.)*[^ \t\n\x85"<>|(){}.]+(?:&gt;|>)?"#.into(),
            Chars(0),
            Keep,
        ),
        (r"@[A-Za-z_][A-Za-z_0-9]*".into(), Chars(0), Keep),
        (r"#(?:{LETTER}|\x8f)+".into(), Chars(0), Keep),
        (WORD.into(), Chars(0), Word),
        (format!(r"(?:{WORD}|{THING}|{DASHED}|{AND})\.[,;:\x96]"), Chars(1), Word),
        (r"(?i:pro-|anti-|s&p-500|s&ls)".into(), Chars(0), Keep),
        // Amounts and numbers.
        (r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}".into(), Chars(0), Keep),
        (r"[-+]?(?:{DIGIT}+|{DIGIT}*(?:[.:,\x8f\x94]{DIGIT}+)+)".into(), Chars(0), Word),
        (r"(?:[0-9]{1,4}[- \x85])?[0-9]{1,4}(?:\\?/|\x95)[0-9]{1,4}".into(), Chars(0), Joined),
        (r"\x90".into(), Chars(0), Fraction),
        (r"[A-Z]*(?:\$|\x91)".into(), Chars(0), Currency),
        (r"\x92".into(), Chars(0), Put("#")),
        (r"\x93".into(), Chars(0), Put("cents")),
        (r"C\+\+|c\+\+|[CFcf]#".into(), Chars(0), Keep),
        (
            r"(?:\([0-9]{2,3}\)[ \x85]?|(?:\+\+?)?(?:[0-9]{2,4}[- \x85])?[0-9]{2,4}[- \x85])[0-9]{3,4}[- \x85]?[0-9]{3,5}|(?:(?:\+\+?)?[0-9]{2,4}\.)?[0-9]{2,4}\.[0-9]{3,4}\.[0-9]{3,5}".into(),
            Chars(0),
            Joined,
        ),
        // Brackets come before smileys that begin with them only by length.
        (r#""|&quot;"#.into(), Chars(0), Put("''")),
        (r#"(?:"|&quot;)[A-Za-z0-9$]"#.into(), Chars(1), Put("``")),
        (r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]][^A-Za-z0-9]".into(), Chars(1), Joined),
        (
            r"[\^x=~<>]\.\[\^x=~<>]|[-^x=~<>']_[-^x=~<>']|\([-^x=~<>'][_.]?[-^x=~<>']\)|\([\^x=~<>']-[\^x=~<>'`]\)".into(),
            Chars(0),
            Joined,
        ),
        (r"(?i:-[lr][rcs]b-)".into(), Chars(0), Keep),
        (r"\(".into(), Chars(0), Put("-lrb-")),
        (r"\)".into(), Chars(0), Put("-rrb-")),
        (r"\[".into(), Chars(0), Put("-lsb-")),
        (r"\]".into(), Chars(0), Put("-rsb-")),
        (r"\{".into(), Chars(0), Put("-lcb-")),
        (r"\}".into(), Chars(0), Put("-rcb-")),
        (r"---?-?|----".into(), Chars(0), Put("--")),
        (r"-|-----+".into(), Chars(0), Keep),
        (r"\.{3,5}|(?:\.[ \x85]){2,4}\.|\x8d".into(), Chars(0), Put("...")),
        (r"<<|>>".into(), Chars(0), Keep),
        // Abbreviations.
        (r"{NUMBERED}\.{ANYBLANK}?{DIGIT}".into(), Ahead::AfterDot, Keep),
        (r"{ABBREVIATION}\.{ANYBLANK}(?:{ANYBLANK}|[A-Z\x81]|{MARKUP})".into(), Ahead::AfterDot, LastAgain),
        (r"{ABBREVIATION}\.(?s-u:..)".into(), Chars(2), Keep),
        (r"{ABBREVIATION}\.".into(), Chars(0), LastAgain),
        (r"{TITLE}\.".into(), Chars(0), Keep),
        (format!(r"{ACRONYM}\.{{ANYBLANK}}+(?:{{OPENER}}|{{MARKUP}}){{ANYBLANK}}"), Ahead::AfterDot, LastAgain),
        (r"[A-Za-z]\.{ANYBLANK}+(?:{OPENER}|{MARKUP}){ANYBLANK}".into(), Ahead::AfterDot, Without(1)),
        (format!(r"(?:[A-Za-z]|{ACRONYM})\."), Chars(0), Keep),
        (
            r"(?:{LETTER}|{DIGIT})+(?:\.(?:{LETTER}|{DIGIT})+)*\.(?i:c|h|x|gz|pl|ps|py|bat|bmp|cgi|cpp|dll|doc|exe|gif|htm|jar|jpg|mov|pdf|php|png|ppt|sql|tar|txt|wav|xml|zip|docx|html|java|jpeg|mp3|class)[ \t\n\x85.!?,]".into(),
            Chars(1),
            Keep,
        ),
        // Words with signs inside.
        (format!(r"{slash_part}(?:\\?/{slash_part}){{1,2}}"), Chars(0), Keep),
        (THING.into(), Chars(0), Word),
        (AND.into(), Chars(0), Word),
        (DASHED.into(), Chars(0), Keep),
        // Quotes.
        (r"'[A-Za-z][^ \t\n\x85]".into(), Chars(2), Put("`")),
        (r"{APO}(?i:[msd]|re|ve|ll)".into(), Chars(0), Apostrophe),
        (r"['\x87][0-9][0-9]{ANYBLANK}".into(), Chars(1), Keep),
        (r"'|\x87|\x89|&apos;".into(), Chars(0), Put("'")),
        (r"`|\x88".into(), Chars(0), Put("`")),
        (r"``|\x8a".into(), Chars(0), Put("``")),
        (r"''|\x8b".into(), Chars(0), Put("''")),
        (r"[`\x87-\x8b]{2}".into(), Chars(0), Quotes),
        // Runs and single signs.
        (r"[?!]+|\*+|(?:\\\*)+|#+|@+|_+".into(), Chars(0), Keep),
        (r"[!-/:-@\[-`{-~\x84\x94\x95\x96]".into(), Chars(0), Keep),
        (r"\x8f+".into(), Chars(0), Put("-")),
        (r"\x83|\x82".into(), Chars(0), Keep),
        (r"[ \t\x85\x86\x8e]".into(), Chars(0), Skip),
    ];
    list.into_iter()
        .map(|(expression, ahead, action)| Rule { expression: expand(&expression), ahead, action })
        .collect()
}
