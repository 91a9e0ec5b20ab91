//! Learning which picture a sentence is about: pictures that are easily taken for each other, and the loss that tells them
//! apart (Mao et al. 2016, "Generation and comprehension of unambiguous object descriptions").

use std::collections::BTreeMap;

use rand::Rng;
use rand::seq::IndexedRandom;
use rayon::prelude::*;
use sightline_data::store::FeatureStore;
use sightline_model::caption::Said;
use sightline_search::simd::dot;

use super::items::Item;

/// For each item others that it is easily taken for.
#[derive(Debug)]
pub(super) struct Rivals {
    of: Vec<Vec<usize>>,
}

impl Rivals {
    /// Of whole photos the `most` whose whole-image vectors are nearest, nearest first: by angle, after the mean of all was
    /// taken away.
    pub(super) fn of_photos(items: &[Item], store: &FeatureStore, most: usize) -> Self {
        let dim = store.dim();
        let mut vectors: Vec<Vec<f32>> = (items.iter())
            .map(|item| store.get(item.position).vector_f16(item.region).iter().map(|x| x.to_f32()).collect())
            .collect();
        let mean: Vec<f32> =
            (0..dim).map(|d| vectors.iter().map(|v| v[d]).sum::<f32>() / vectors.len().max(1) as f32).collect();
        for vector in &mut vectors {
            vector.iter_mut().zip(&mean).for_each(|(x, mean)| *x -= mean);
            let length = dot(vector, vector).sqrt().max(f32::MIN_POSITIVE);
            vector.iter_mut().for_each(|x| *x /= length);
        }
        let nearest = |own: usize| {
            let others = (0..vectors.len()).filter(|&other| other != own);
            let mut others: Vec<(f32, usize)> =
                others.map(|other| (dot(&vectors[own], &vectors[other]), other)).collect();
            let order = |a: &(f32, usize), b: &(f32, usize)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            if others.len() > most {
                others.select_nth_unstable_by(most, order);
                others.truncate(most);
            }
            others.sort_unstable_by(order);
            others.into_iter().map(|(_, other)| other).collect()
        };
        Self { of: (0..vectors.len()).into_par_iter().map(nearest).collect() }
    }

    /// Of regions all others of the same photo.
    pub(super) fn of_regions(items: &[Item]) -> Self {
        let mut photos: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (i, item) in items.iter().enumerate() {
            photos.entry(item.position).or_default().push(i);
        }
        let others =
            |(i, item): (usize, &Item)| photos[&item.position].iter().copied().filter(|&other| other != i).collect();
        Self { of: items.iter().enumerate().map(others).collect() }
    }

    /// Sentences of some items, each to be told of its own item and of at most `n` rivals: drawn, or the first ones.
    pub(super) fn choices<'i>(
        &self,
        items: &'i [Item],
        asked: &[usize],
        n: usize,
        mut rng: Option<&mut dyn Rng>,
    ) -> Choices<'i> {
        let mut choices = Choices::default();
        let mut pictures = BTreeMap::new();
        for &own in asked {
            let rivals: Vec<usize> = match &mut rng {
                Some(rng) => self.of[own].sample(rng, n).copied().collect(),
                None => self.of[own].iter().copied().take(n).collect(),
            };
            let candidates: Vec<usize> = (std::iter::once(own).chain(rivals))
                .map(|item| {
                    *pictures.entry(item).or_insert_with(|| {
                        choices.pictures.push(item);
                        choices.pictures.len() - 1
                    })
                })
                .collect();
            for words in &items[own].sentences {
                choices.sentences.extend(std::iter::repeat_n(words.as_slice(), candidates.len()));
                choices.of.extend(&candidates);
                choices.candidates.push(candidates.len());
            }
        }
        choices
    }
}

/// Sentences, each with its own picture and with rivals.
#[derive(Debug, Default)]
pub(super) struct Choices<'i> {
    /// The items that take part.
    pub(super) pictures: Vec<usize>,
    /// Every sentence as often as it has candidates.
    sentences: Vec<&'i [u32]>,
    /// The candidate of each, an index among `pictures`; a sentence's own comes first.
    of: Vec<usize>,
    /// Candidates of each sentence.
    candidates: Vec<usize>,
}

impl Choices<'_> {
    /// Each sentence of each of its candidates.
    pub(super) fn said(&self) -> Said<'_> {
        Said { sentences: &self.sentences, pictures: &self.of }
    }

    /// How many sentences have a rival, and for how many of them the own picture is likelier than every one.
    pub(super) fn right(&self, tokens: &[f32]) -> (usize, usize) {
        let given = self.said().sums(tokens);
        let rivalled = || of_each(&self.candidates, &given).filter(|given| given.len() > 1);
        let right = rivalled().filter(|given| given[1..].iter().all(|&rival| rival < given[0]));
        (rivalled().count(), right.count())
    }

    /// The loss a sentence, and minus its derivative by the log probability of every token: `-log p(own picture |
    /// sentence)`, the softmax over its candidates of `sharpness` times the sentence's log probability, plus `likelihood`
    /// times minus the log probability given the own picture.
    pub(super) fn loss(&self, tokens: &[f32], sharpness: f32, likelihood: f32) -> (f64, Vec<f32>) {
        let n = self.candidates.len() as f32;
        let (mut loss, mut of_pairs) = (0.0, Vec::with_capacity(self.sentences.len()));
        for given in of_each(&self.candidates, &self.said().sums(tokens)) {
            let most = given.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f32 = given.iter().map(|x| (sharpness * (x - most)).exp()).sum();
            let log_p = |x: f32| sharpness * (x - most) - sum.ln();
            loss -= f64::from(log_p(given[0]) + likelihood * given[0]);
            of_pairs.extend(given.iter().enumerate().map(|(i, &x)| {
                let own = if i == 0 { sharpness + likelihood } else { 0.0 };
                (own - sharpness * log_p(x).exp()) / n
            }));
        }
        let of_tokens = |(words, weight): (&&[u32], f32)| std::iter::repeat_n(weight, words.len() + 1);
        let weights = self.sentences.iter().zip(of_pairs).flat_map(of_tokens).collect();
        (loss / f64::from(n), weights)
    }
}

/// Slices of the given lengths.
fn of_each<'v>(lengths: &[usize], values: &'v [f32]) -> impl Iterator<Item = &'v [f32]> {
    let mut rest = values;
    lengths.iter().map(move |&n| {
        let (own, others) = rest.split_at(n);
        rest = others;
        own
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(position: usize, region: usize, sentences: &[&[u32]]) -> Item {
        let sentences = sentences.iter().map(|words| words.to_vec()).collect();
        Item { position, region, sentences, references: Vec::new() }
    }

    #[test]
    fn regions_are_rivals_of_their_photos_others() {
        let items = [item(0, 1, &[&[1]]), item(1, 1, &[&[2]]), item(0, 2, &[&[3, 4], &[5]]), item(0, 5, &[])];
        let rivals = Rivals::of_regions(&items);
        assert_eq!(rivals.of, [vec![2, 3], vec![], vec![0, 3], vec![0, 2]]);
        let choices = rivals.choices(&items, &[2, 1], 1, None);
        assert_eq!(choices.pictures, [2, 0, 1]);
        assert_eq!(choices.sentences, [&[3, 4][..], &[3, 4], &[5], &[5], &[2]]);
        assert_eq!(choices.of, [0, 1, 0, 1, 2]);
        assert_eq!(choices.candidates, [2, 2, 1]);
        // The first sentence is likelier of its rival, the second of its own; the third has no rival to be told from.
        let tokens = [-1.0, -1.0, -1.0, -0.5, -1.0, -0.5, -1.0, -1.0, -2.0, -1.0, -3.0, -1.0];
        assert_eq!(choices.right(&tokens), (2, 1));
    }

    #[test]
    fn the_loss_falls_as_its_weights_say() {
        let items = [item(0, 1, &[&[1, 2], &[3]]), item(0, 2, &[&[4]]), item(0, 3, &[&[5, 6, 7]])];
        let choices = Rivals::of_regions(&items).choices(&items, &[0, 1, 2], 2, None);
        let n: usize = choices.sentences.iter().map(|words| words.len() + 1).sum();
        let tokens: Vec<f32> = (0..n).map(|i| -0.1 - (i * 7 % 13) as f32 / 5.0).collect();
        let (_, weights) = choices.loss(&tokens, 0.7, 0.3);
        for i in 0..n {
            let at = |by: f32| {
                let mut moved = tokens.clone();
                moved[i] += by;
                choices.loss(&moved, 0.7, 0.3).0
            };
            let difference = (at(-0.01) - at(0.01)) / 0.02;
            assert!((difference - f64::from(weights[i])).abs() < 1e-4, "{i}: {difference} {}", weights[i]);
        }
        // All candidates alike: the share of each is even, and so is the loss.
        let (even, _) = choices.loss(&vec![-1.0; n], 1.0, 0.0);
        assert!((even - 3f64.ln()).abs() < 1e-6, "{even}");
    }
}
