//! METEOR's alignment of hypothesis and reference: lists of candidate matches and a beam search over them.
//!
//! The oddities of the reference are kept, because scores depend on them: matches can be in a list several times, a
//! match of one word found by stem, synonym or paraphrase gains nothing in the search, and the distance of a match is
//! charged to the path it was copied from.

use super::parameters::Module;

/// A candidate match of some reference words with some hypothesis words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Match {
    /// First word in the reference.
    pub start: u32,
    /// Words in the reference.
    pub length: u32,
    /// First word in the hypothesis.
    pub hypothesis_start: u32,
    /// Words in the hypothesis.
    pub hypothesis_length: u32,
    /// How it was found.
    pub module: Module,
}

const BEAM: usize = 40;

/// Flags of words; 64 words need no memory of their own.
trait Flags: Clone {
    fn none(words: usize) -> Self;
    fn has(&self, from: u32, count: u32) -> bool;
    fn set(&mut self, from: u32, count: u32);
}

fn mask(from: u32, count: u32) -> u64 {
    (if count >= 64 { u64::MAX } else { (1 << count) - 1 }) << from
}

impl Flags for u64 {
    fn none(_: usize) -> Self {
        0
    }

    fn has(&self, from: u32, count: u32) -> bool {
        self & mask(from, count) != 0
    }

    fn set(&mut self, from: u32, count: u32) {
        *self |= mask(from, count);
    }
}

impl Flags for Vec<bool> {
    fn none(words: usize) -> Self {
        vec![false; words]
    }

    fn has(&self, from: u32, count: u32) -> bool {
        self[from as usize..(from + count) as usize].contains(&true)
    }

    fn set(&mut self, from: u32, count: u32) {
        self[from as usize..(from + count) as usize].fill(true);
    }
}

#[derive(Clone)]
struct Path<F> {
    hypothesis_used: F,
    reference_used: F,
    hypothesis_matched: i32,
    reference_matched: i32,
    chunks: i32,
    distance: i32,
    /// Where the last chosen match ends in the reference.
    index: i32,
    /// Where the last chosen match ends in the hypothesis; -1 when the last word was skipped.
    last_end: i32,
    /// The last chosen match in the arena of choices, plus one; 0 for none.
    chosen: u32,
}

impl<F: Flags> Path<F> {
    /// Counts a match, all but its distance.
    fn take(&mut self, m: &Match) {
        let weight = if m.module == Module::Exact { 1.0 } else { 0.5 };
        // The reference adds in floating point and cuts to an integer every time.
        self.hypothesis_matched = (f64::from(self.hypothesis_matched) + f64::from(m.hypothesis_length) * weight) as i32;
        self.reference_matched = (f64::from(self.reference_matched) + f64::from(m.length) * weight) as i32;
        if self.last_end != -1 && m.hypothesis_start as i32 != self.last_end {
            self.chunks += 1;
        }
        self.index = (m.start + m.length) as i32;
        self.last_end = (m.hypothesis_start + m.hypothesis_length) as i32;
    }

    fn distance(m: &Match) -> i32 {
        (m.start as i32 - m.hypothesis_start as i32).abs()
    }
}

/// The chosen matches in the order of the reference. `lists[j]` are the candidates that start at reference word `j`.
pub(super) fn align(hypothesis_words: usize, reference_words: usize, lists: &[Vec<Match>]) -> Vec<Match> {
    if hypothesis_words <= 64 && reference_words <= 64 {
        search::<u64>(hypothesis_words, reference_words, lists)
    } else {
        search::<Vec<bool>>(hypothesis_words, reference_words, lists)
    }
}

fn search<F: Flags>(hypothesis_words: usize, reference_words: usize, lists: &[Vec<Match>]) -> Vec<Match> {
    // How many candidates cover every word.
    let mut hypothesis_cover = vec![0_u32; hypothesis_words];
    let mut reference_cover = vec![0_u32; reference_words];
    for m in lists.iter().flatten() {
        hypothesis_cover[m.hypothesis_start as usize..][..m.hypothesis_length as usize]
            .iter_mut()
            .for_each(|c| *c += 1);
        reference_cover[m.start as usize..][..m.length as usize].iter_mut().for_each(|c| *c += 1);
    }
    let mut first = Path {
        hypothesis_used: F::none(hypothesis_words),
        reference_used: F::none(reference_words),
        hypothesis_matched: 0,
        reference_matched: 0,
        chunks: 0,
        distance: 0,
        index: 0,
        last_end: -1,
        chosen: 0,
    };
    // Matches without any rival are fixed in advance.
    let mut definite: Vec<Option<Match>> = vec![None; reference_words];
    for (j, list) in lists.iter().enumerate() {
        if let [m] = list.as_slice()
            && hypothesis_cover[m.hypothesis_start as usize..][..m.hypothesis_length as usize].iter().all(|&c| c == 1)
            && reference_cover[m.start as usize..][..m.length as usize].iter().all(|&c| c == 1)
        {
            definite[j] = Some(*m);
            first.hypothesis_used.set(m.hypothesis_start, m.hypothesis_length);
            first.reference_used.set(m.start, m.length);
        }
    }

    // Chosen matches as chains: (match, the link before it plus one).
    let mut choices: Vec<(Match, u32)> = Vec::new();
    let mut paths = vec![first];
    let mut next: Vec<Path<F>> = Vec::new();
    for position in 0..=reference_words {
        paths.sort_by_key(rank);
        paths.truncate(BEAM);
        next.clear();
        for mut path in paths.drain(..) {
            if position == reference_words {
                if path.last_end != -1 {
                    path.chunks += 1;
                }
                next.push(path);
                continue;
            }
            if path.reference_used.has(position as u32, 1) {
                if position as i32 >= path.index
                    && let Some(m) = &definite[position]
                {
                    path.take(m);
                    path.distance += Path::<F>::distance(m);
                }
                next.push(path);
                continue;
            }
            for m in &lists[position] {
                if path.hypothesis_used.has(m.hypothesis_start, m.hypothesis_length)
                    || path.reference_used.has(m.start, m.length)
                {
                    continue;
                }
                let mut taken = path.clone();
                taken.take(m);
                taken.hypothesis_used.set(m.hypothesis_start, m.hypothesis_length);
                taken.reference_used.set(m.start, m.length);
                choices.push((*m, path.chosen));
                taken.chosen = choices.len() as u32;
                next.push(taken);
                path.distance += Path::<F>::distance(m);
            }
            if path.last_end != -1 {
                path.chunks += 1;
                path.last_end = -1;
            }
            path.index += 1;
            next.push(path);
        }
        std::mem::swap(&mut paths, &mut next);
    }
    paths.sort_by_key(rank);
    let mut chosen: Vec<Match> = definite.into_iter().flatten().collect();
    let mut link = paths.first().map_or(0, |p| p.chosen);
    while link != 0 {
        let (m, before) = choices[link as usize - 1];
        chosen.push(m);
        link = before;
    }
    chosen.sort_by_key(|m| m.start);
    chosen
}

/// Most matched words, fewest chunks, least distance.
fn rank<F>(path: &Path<F>) -> (i32, i32, i32) {
    (-(path.hypothesis_matched + path.reference_matched), path.chunks, path.distance)
}

/// How many chunks the chosen matches, in the order of the reference, form.
pub(super) fn chunks(matches: &[Match]) -> u64 {
    let breaks = matches.windows(2).filter(|pair| {
        let (a, b) = (&pair[0], &pair[1]);
        a.start + a.length != b.start || a.hypothesis_start + a.hypothesis_length != b.hypothesis_start
    });
    breaks.count() as u64 + u64::from(!matches.is_empty())
}
