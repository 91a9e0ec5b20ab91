//! A small grammar: sentences about some of a scene's objects, and which object every word is about.
//!
//! The truth of a noun phrase is every object that it fits: "the ball" in a scene with two balls means either, unless
//! a colour, a size or a relation tells them apart.

use rand::Rng;

use super::{Background, Colour, Object, SENTENCES_PER_SCENE, SceneSentence, Shape, Size, chance, pick};

/// What part a word plays in its sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WordKind {
    /// Names an object.
    Noun,
    /// Colour or size of an object.
    Adjective,
    /// Says how two objects lie.
    Relation,
    /// Names the ground, which no object's box covers.
    Background,
    /// Names nothing in the picture.
    Distractor,
    /// Articles, numbers, verbs, prepositions.
    Function,
}

/// A word and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrueWord {
    /// The token: lower case, no punctuation.
    pub word: String,
    /// Its part.
    pub kind: WordKind,
    /// Indices into [`super::Scene::objects`], ascending: for nouns and adjectives every object that is meant, for
    /// relations both sides; empty for all else.
    pub objects: Vec<usize>,
}

/// [`SENTENCES_PER_SCENE`] different sentences. `objects` come with whom they hide in part; together the sentences
/// speak of every object, each of only some.
pub(super) fn sentences(
    objects: &[(Object, Vec<usize>)],
    background: Background,
    picture: (u32, u32),
    rng: &mut impl Rng,
) -> Vec<SceneSentence> {
    let writer = Writer { objects, background, side: ((picture.0 * picture.1) as f32).sqrt() };
    let mut sentences: Vec<SceneSentence> = Vec::new();
    while sentences.len() < SENTENCES_PER_SCENE {
        // Each object has its turn as the one that must be spoken of.
        let sentence = writer.sentence(sentences.len() % objects.len(), rng);
        if let Some(sentence) = sentence
            && sentences.iter().all(|other| other.text != sentence.text)
        {
            sentences.push(sentence);
        }
    }
    sentences
}

/// How two objects lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    LeftOf,
    RightOf,
    Above,
    Below,
    Beside,
    Inside,
    InFrontOf,
    Behind,
}

impl Relation {
    const ALL: [Self; 8] = [
        Self::LeftOf,
        Self::RightOf,
        Self::Above,
        Self::Below,
        Self::Beside,
        Self::Inside,
        Self::InFrontOf,
        Self::Behind,
    ];

    fn phrases(self) -> &'static [&'static str] {
        match self {
            Self::LeftOf => &["left of", "to the left of"],
            Self::RightOf => &["right of", "to the right of"],
            Self::Above => &["above", "over"],
            Self::Below => &["below", "under", "beneath"],
            Self::Beside => &["beside", "next to", "near"],
            Self::Inside => &["inside", "within"],
            Self::InFrontOf => &["in front of"],
            Self::Behind => &["behind"],
        }
    }
}

/// What a noun phrase says of its object.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Description {
    shape: Shape,
    colour: Option<Colour>,
    size: Option<Size>,
}

impl Description {
    fn fits(&self, object: &Object) -> bool {
        self.shape == object.shape
            && self.colour.is_none_or(|colour| colour == object.colour)
            && self.size.is_none_or(|size| size == object.size)
    }
}

struct Writer<'a> {
    objects: &'a [(Object, Vec<usize>)],
    background: Background,
    /// Square root of the picture's area, in pixels.
    side: f32,
}

impl Writer<'_> {
    /// A sentence that speaks of `primary`; nothing where the form chosen does not suit the scene.
    fn sentence(&self, primary: usize, rng: &mut impl Rng) -> Option<SceneSentence> {
        let mut text = Text::default();
        let form = pick(rng, &["one", "one", "and", "and", "list", "relation", "relation", "relation", "count", "is"]);
        let counted = if form == "count" { Some(self.count(primary, rng)?) } else { None };
        let opened = form != "is" && chance(rng, 0.55) && {
            text.opening(counted.is_some(), rng);
            true
        };
        match form {
            "one" => self.noun_phrase(&mut text, &self.describe(primary, rng), rng),
            "and" | "list" => {
                let mut others: Vec<usize> = (0..self.objects.len()).filter(|&i| i != primary).collect();
                let n_others = if form == "and" { 1 } else { 2 };
                if others.len() < n_others {
                    return None;
                }
                let mut descriptions = vec![self.describe(primary, rng)];
                for _ in 0..n_others {
                    let other = others.swap_remove(rng.next_u32() as usize % others.len());
                    descriptions.push(self.describe(other, rng));
                }
                let told_apart = |d: &Description| {
                    descriptions
                        .iter()
                        .filter(|other| self.fitting(other).iter().any(|&i| d.fits(self.object(i))))
                        .count()
                        == 1
                };
                if !descriptions.iter().all(told_apart) {
                    return None;
                }
                for (n, description) in descriptions.iter().enumerate() {
                    if n + 1 == descriptions.len() {
                        text.function("and");
                    } else if n > 0 {
                        text.comma();
                    }
                    self.noun_phrase(&mut text, description, rng);
                }
            }
            "relation" => self.relation(&mut text, primary, opened, rng)?,
            "count" => self.counted_phrase(&mut text, &counted?, rng),
            _ => self.predicate(&mut text, primary, rng),
        }
        if chance(rng, 0.35) {
            text.ground(self.background, rng);
        }
        if chance(rng, 0.15) {
            text.closing(rng);
        }
        Some(text.finish())
    }

    fn object(&self, i: usize) -> &Object {
        &self.objects[i].0
    }

    /// The objects that a description fits, ascending.
    fn fitting(&self, description: &Description) -> Vec<usize> {
        (0..self.objects.len()).filter(|&i| description.fits(self.object(i))).collect()
    }

    /// Some of what can be said of object `i`; mostly enough to tell it from the others where that is possible.
    fn describe(&self, i: usize, rng: &mut impl Rng) -> Description {
        let Object { shape, colour, size, .. } = *self.object(i);
        let colour_said = chance(rng, 0.7).then_some(colour);
        let size_said = chance(rng, 0.3).then_some(size);
        let mut description = Description { shape, colour: colour_said, size: size_said };
        if chance(rng, 0.85) {
            let more =
                [Description { colour: Some(colour), ..description }, Description { size: Some(size), ..description }];
            for richer in more {
                if self.fitting(&richer).len() < self.fitting(&description).len() {
                    description = richer;
                }
            }
        }
        description
    }

    fn noun_phrase(&self, text: &mut Text, description: &Description, rng: &mut impl Rng) {
        let article = pick(rng, &["a", "a", "a", "a", "the", "one"]);
        text.phrase(article, description, &self.fitting(description), 1, rng);
    }

    /// The object, a relation that holds, and the other object. Both phrases mean only what takes part in it.
    fn relation(&self, text: &mut Text, primary: usize, opened: bool, rng: &mut impl Rng) -> Option<()> {
        let partner = (0..self.objects.len()).filter(|&i| i != primary).collect::<Vec<_>>();
        let partner = *partner.get(rng.next_u32() as usize % partner.len().max(1))?;
        let holding: Vec<Relation> =
            Relation::ALL.into_iter().filter(|&relation| self.holds(relation, primary, partner)).collect();
        if holding.is_empty() {
            return None;
        }
        let relation = pick(rng, &holding);
        let (first, second) = (self.describe(primary, rng), self.describe(partner, rng));
        let (fit_first, fit_second) = (self.fitting(&first), self.fitting(&second));
        let related = |a: usize, b: usize| a != b && self.holds(relation, a, b);
        let heads: Vec<usize> =
            fit_first.iter().copied().filter(|&a| fit_second.iter().any(|&b| related(a, b))).collect();
        let tails: Vec<usize> =
            fit_second.iter().copied().filter(|&b| fit_first.iter().any(|&a| related(a, b))).collect();
        if heads.iter().any(|a| tails.contains(a)) {
            // "a ball left of a ball" with three balls in a row: nobody could say which.
            return None;
        }
        text.phrase(pick(rng, &["a", "a", "the"]), &first, &heads, 1, rng);
        if !opened {
            match pick(rng, &["", "", "is", "sits", "lies"]) {
                "" => {}
                verb => text.function(verb),
            }
        }
        let mut both = [heads, tails.clone()].concat();
        both.sort_unstable();
        for word in pick(rng, relation.phrases()).split(' ') {
            match word {
                "to" | "the" | "of" | "in" => text.function(word),
                _ => text.push(word, WordKind::Relation, &both),
            }
        }
        text.phrase(pick(rng, &["a", "a", "the"]), &second, &tails, 1, rng);
        Some(())
    }

    /// Whether `a` lies so to `b`, clearly.
    fn holds(&self, relation: Relation, a: usize, b: usize) -> bool {
        let ((first, hides), (second, hidden_by_second)) = (&self.objects[a], &self.objects[b]);
        let ((ax, ay), (bx, by)) = (first.region.centre(), second.region.centre());
        let (dx, dy) = (ax - bx, ay - by);
        let far = 0.12 * self.side;
        let gap = (dx.abs() - (first.region.width() + second.region.width()) / 2.0).max(0.0);
        match relation {
            Relation::LeftOf => dx < -far && dx.abs() > 1.3 * dy.abs(),
            Relation::RightOf => dx > far && dx.abs() > 1.3 * dy.abs(),
            Relation::Above => dy < -far && dy.abs() > 1.3 * dx.abs(),
            Relation::Below => dy > far && dy.abs() > 1.3 * dx.abs(),
            Relation::Beside => dx.abs() > far && dx.abs() > 1.6 * dy.abs() && gap < 0.2 * self.side,
            Relation::Inside => {
                let (inner, outer) = (first.region, second.region);
                second.shape == Shape::Ring
                    && inner.x1 > outer.x1
                    && inner.y1 > outer.y1
                    && inner.x2 < outer.x2
                    && inner.y2 < outer.y2
            }
            Relation::InFrontOf => hides.contains(&b),
            Relation::Behind => hidden_by_second.contains(&a),
        }
    }

    /// The objects like `primary`, at least two, and how they are described.
    fn count(&self, primary: usize, rng: &mut impl Rng) -> Option<(Description, Vec<usize>)> {
        let Object { shape, colour, .. } = *self.object(primary);
        let plain = Description { shape, colour: None, size: None };
        let coloured = Description { colour: Some(colour), ..plain };
        let said = if chance(rng, 0.7) { [coloured, plain] } else { [plain, coloured] };
        said.into_iter().map(|d| (d, self.fitting(&d))).find(|(_, fitting)| fitting.len() >= 2)
    }

    fn counted_phrase(&self, text: &mut Text, (description, fitting): &(Description, Vec<usize>), rng: &mut impl Rng) {
        let number = ["two", "three", "four"][fitting.len() - 2];
        text.phrase(number, description, fitting, fitting.len(), rng);
    }

    /// "the big ball is red".
    fn predicate(&self, text: &mut Text, primary: usize, rng: &mut impl Rng) {
        let object = self.object(primary);
        let coloured = chance(rng, 0.75);
        let full = Description {
            shape: object.shape,
            colour: coloured.then_some(object.colour),
            size: (!coloured || chance(rng, 0.3)).then_some(object.size),
        };
        let meant = self.fitting(&full);
        let subject = if coloured { Description { colour: None, ..full } } else { Description { size: None, ..full } };
        text.phrase(pick(rng, &["the", "the", "this"]), &subject, &meant, 1, rng);
        text.function("is");
        let word = if coloured { colour_word(object.colour, rng) } else { size_word(object.size, rng) };
        text.push(word, WordKind::Adjective, &meant);
    }
}

/// A sentence in the making.
#[derive(Default)]
struct Text {
    words: Vec<TrueWord>,
    /// Indices of the words that a comma follows.
    commas: Vec<usize>,
}

impl Text {
    fn push(&mut self, word: &str, kind: WordKind, objects: &[usize]) {
        self.words.push(TrueWord { word: word.to_owned(), kind, objects: objects.to_vec() });
    }

    fn function(&mut self, word: &str) {
        self.push(word, WordKind::Function, &[]);
    }

    fn comma(&mut self) {
        self.commas.push(self.words.len() - 1);
    }

    /// Words that name nothing stand capitalised in the list, so that it reads as it will be said.
    fn opening(&mut self, plural: bool, rng: &mut impl Rng) {
        let openings = [
            "there is",
            "there is",
            "here is",
            "we see",
            "I can see",
            "LOOK ,",
            "PLEASE LOOK at",
            "a NICE PHOTO of",
            "a PICTURE of",
            "a PHOTO with",
            "SOMEWHERE there is",
            "TODAY we see",
        ];
        for word in pick(rng, &openings).split(' ') {
            match word {
                "," => self.comma(),
                "is" if plural => self.function("are"),
                "I" => self.function("i"),
                _ if word.len() > 1 && word.chars().all(char::is_uppercase) => {
                    self.push(&word.to_lowercase(), WordKind::Distractor, &[]);
                }
                _ => self.function(word),
            }
        }
    }

    fn closing(&mut self, rng: &mut impl Rng) {
        for word in pick(rng, &["today", "somewhere", "again", "as usual", "this morning", "indeed"]).split(' ') {
            let kind = if matches!(word, "as" | "this") { WordKind::Function } else { WordKind::Distractor };
            self.push(word, kind, &[]);
        }
    }

    /// "on the grass".
    fn ground(&mut self, background: Background, rng: &mut impl Rng) {
        let (preposition, nouns): (_, &[_]) = match background {
            Background::Grass => ("on", &["grass", "lawn", "meadow"]),
            Background::Sand => ("on", &["sand", "beach"]),
            Background::Water => ("on", &["water", "sea"]),
            Background::Wall => ("against", &["wall", "bricks"]),
            Background::Sky => ("in", &["sky", "clouds"]),
            Background::Wood => ("on", &["wood", "planks"]),
            Background::Stone => ("on", &["stone", "gravel"]),
            Background::Tiles => ("on", &["tiles", "floor"]),
        };
        self.function(preposition);
        self.function("the");
        self.push(pick(rng, nouns), WordKind::Background, &[]);
    }

    /// Article or number, adjectives, noun; all but the first mean `objects`.
    fn phrase(
        &mut self,
        article: &str,
        description: &Description,
        objects: &[usize],
        count: usize,
        rng: &mut impl Rng,
    ) {
        self.function(article);
        if chance(rng, 0.06) {
            self.push(pick(rng, &["nice", "lovely", "strange"]), WordKind::Distractor, &[]);
        }
        if let Some(size) = description.size {
            self.push(size_word(size, rng), WordKind::Adjective, objects);
        }
        if let Some(colour) = description.colour {
            self.push(colour_word(colour, rng), WordKind::Adjective, objects);
        }
        let (singular, plural) = shape_word(description.shape, rng);
        self.push(if count == 1 { singular } else { plural }, WordKind::Noun, objects);
    }

    /// Articles agree with what follows, the first letter is large, and a full stop ends it.
    fn finish(mut self) -> SceneSentence {
        for i in 0..self.words.len().saturating_sub(1) {
            let vowel = self.words[i + 1].word.starts_with(['a', 'e', 'i', 'o', 'u']);
            if vowel && self.words[i].word == "a" {
                self.words[i].word.push('n');
            }
        }
        let mut text = String::new();
        for (i, word) in self.words.iter().enumerate() {
            if i == 0 {
                let mut letters = word.word.chars();
                text.extend(letters.next().into_iter().flat_map(char::to_uppercase));
                text.push_str(letters.as_str());
            } else {
                text.push(' ');
                text.push_str(if word.word == "i" { "I" } else { &word.word });
            }
            if self.commas.contains(&i) {
                text.push(',');
            }
        }
        text.push('.');
        SceneSentence { text, words: self.words }
    }
}

/// One of the names of a shape: singular and plural.
fn shape_word(shape: Shape, rng: &mut impl Rng) -> (&'static str, &'static str) {
    let names: &[(&str, &str)] = match shape {
        Shape::Circle => &[("circle", "circles"), ("ball", "balls"), ("disc", "discs")],
        Shape::Square => &[("square", "squares"), ("box", "boxes"), ("block", "blocks")],
        Shape::Triangle => &[("triangle", "triangles"), ("pyramid", "pyramids")],
        Shape::Star => &[("star", "stars")],
        Shape::Ring => &[("ring", "rings"), ("hoop", "hoops")],
        Shape::Cross => &[("cross", "crosses"), ("plus", "pluses")],
        Shape::Heart => &[("heart", "hearts")],
        Shape::Moon => &[("moon", "moons"), ("crescent", "crescents")],
    };
    pick(rng, names)
}

fn colour_word(colour: Colour, rng: &mut impl Rng) -> &'static str {
    pick(
        rng,
        match colour {
            Colour::Red => &["red", "red", "red", "crimson"],
            Colour::Orange => &["orange"],
            Colour::Yellow => &["yellow", "yellow", "yellow", "golden"],
            Colour::Green => &["green", "green", "green", "emerald"],
            Colour::Blue => &["blue"],
            Colour::Purple => &["purple", "purple", "violet"],
            Colour::Pink => &["pink", "pink", "pink", "rosy"],
            Colour::White => &["white"],
            Colour::Black => &["black"],
        },
    )
}

fn size_word(size: Size, rng: &mut impl Rng) -> &'static str {
    match size {
        Size::Small => pick(rng, &["small", "small", "little", "tiny"]),
        Size::Large => pick(rng, &["big", "big", "large", "huge"]),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use rand::SeedableRng;

    use super::super::tests::world;
    use super::*;

    #[test]
    fn words_are_the_tokens_of_the_text() {
        for scene in world() {
            for SceneSentence { text, words } in &scene.sentences {
                let told: Vec<&str> = words.iter().map(|w| w.word.as_str()).collect();
                assert_eq!(sightline_data::tokens::tokenize(text), told, "{text}");
                assert!(text.starts_with(char::is_uppercase) && text.ends_with('.') && !text.contains(" ,"), "{text}");
            }
        }
    }

    #[test]
    fn truth_is_true() {
        // Every noun and adjective fits every object it is said to mean, whatever its synonym.
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(0);
        let mut meanings: HashMap<String, HashSet<String>> = HashMap::new();
        for _ in 0..60 {
            for shape in Shape::ALL {
                let (singular, plural) = shape_word(shape, &mut rng);
                for word in [singular, plural] {
                    meanings.entry(word.to_owned()).or_default().insert(format!("{shape:?}"));
                }
            }
            for colour in Colour::ALL {
                meanings.entry(colour_word(colour, &mut rng).to_owned()).or_default().insert(format!("{colour:?}"));
            }
            for size in [Size::Small, Size::Large] {
                meanings.entry(size_word(size, &mut rng).to_owned()).or_default().insert(format!("{size:?}"));
            }
        }
        assert!(meanings.values().all(|meaning| meaning.len() == 1), "a word with two meanings: {meanings:?}");
        let mut n_several = 0;
        for scene in world() {
            for sentence in &scene.sentences {
                for word in &sentence.words {
                    let named = matches!(word.kind, WordKind::Noun | WordKind::Adjective);
                    if !named {
                        let empty = word.kind != WordKind::Relation;
                        assert_eq!(word.objects.is_empty(), empty, "{word:?} in {}", sentence.text);
                        assert!(!meanings.contains_key(&word.word), "{word:?} in {}", sentence.text);
                        continue;
                    }
                    assert!(!word.objects.is_empty(), "{word:?} in {}", sentence.text);
                    assert!(word.objects.is_sorted(), "{word:?}");
                    n_several += usize::from(word.objects.len() > 1);
                    for &i in &word.objects {
                        let Object { shape, colour, size, .. } = &scene.objects[i];
                        let has = [format!("{shape:?}"), format!("{colour:?}"), format!("{size:?}")];
                        let fits = has.iter().any(|h| meanings[&word.word].contains(h));
                        assert!(fits, "{word:?} of {:?} in {}", scene.objects[i], sentence.text);
                    }
                }
            }
        }
        assert!(n_several > 50, "{n_several}");
    }

    #[test]
    fn every_object_is_spoken_of_and_sentences_differ_in_whom() {
        let (mut n_scenes, mut n_differing) = (0, 0);
        for scene in world() {
            let spoken: Vec<HashSet<usize>> =
                scene.sentences.iter().map(|s| s.words.iter().flat_map(|w| w.objects.clone()).collect()).collect();
            let union: HashSet<usize> = spoken.iter().flatten().copied().collect();
            assert_eq!(union.len(), scene.objects.len());
            if scene.objects.len() > 1 {
                n_scenes += 1;
                n_differing += usize::from(spoken.iter().any(|s| *s != spoken[0]));
            }
        }
        assert!(n_differing * 100 > n_scenes * 90, "{n_differing} of {n_scenes}");
    }

    #[test]
    fn a_count_is_the_number_of_its_objects() {
        let mut n_counts = 0;
        for scene in world() {
            for sentence in &scene.sentences {
                let Some(at) = sentence.words.iter().position(|w| ["two", "three", "four"].contains(&w.word.as_str()))
                else {
                    continue;
                };
                let noun = sentence.words[at..].iter().find(|w| w.kind == WordKind::Noun).unwrap();
                let count = ["two", "three", "four"].iter().position(|n| *n == sentence.words[at].word).unwrap() + 2;
                assert_eq!(noun.objects.len(), count, "{}", sentence.text);
                assert!(noun.word.ends_with('s'), "{}", sentence.text);
                n_counts += 1;
            }
        }
        assert!(n_counts > 20, "{n_counts}");
    }

    /// Whom the first noun means.
    fn noun<'a>(mut words: impl Iterator<Item = &'a TrueWord>) -> &'a [usize] {
        words.find(|w| w.kind == WordKind::Noun).map(|w| w.objects.as_slice()).unwrap()
    }

    #[test]
    fn relations_hold() {
        let mut n_relations = HashMap::new();
        for scene in world() {
            for sentence in &scene.sentences {
                let Some(at) = sentence.words.iter().position(|w| w.kind == WordKind::Relation) else { continue };
                let heads = noun(sentence.words[..at].iter().rev());
                let tails = noun(sentence.words[at..].iter());
                let word = sentence.words[at].word.as_str();
                *n_relations.entry(word.to_owned()).or_insert(0) += 1;
                for &a in heads {
                    assert!(!tails.contains(&a), "{}", sentence.text);
                    let centre = |i: usize| scene.objects[i].region.centre();
                    let touches = |a: usize, b: usize| {
                        let (a, b) = (scene.objects[a].region, scene.objects[b].region);
                        a.x1 <= b.x2 && b.x1 <= a.x2 && a.y1 <= b.y2 && b.y1 <= a.y2
                    };
                    let holds = |b: usize| match word {
                        "left" => centre(a).0 < centre(b).0,
                        "right" => centre(a).0 > centre(b).0,
                        "above" | "over" => centre(a).1 < centre(b).1,
                        "below" | "under" | "beneath" => centre(a).1 > centre(b).1,
                        "inside" | "within" => scene.objects[b].region.contains(centre(a)),
                        "front" => a > b && touches(a, b),
                        "behind" => a < b && touches(a, b),
                        _ => matches!(word, "beside" | "next" | "near"),
                    };
                    assert!(tails.iter().any(|&b| holds(b)), "{} {:?}", sentence.text, scene.objects);
                }
            }
        }
        for word in ["left", "above", "beneath", "beside", "inside", "front", "behind"] {
            assert!(n_relations.get(word).copied().unwrap_or(0) >= 8, "{word}: {n_relations:?}");
        }
    }
}
