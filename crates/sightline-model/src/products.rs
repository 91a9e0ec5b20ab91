//! Matrix products at the precision that they are asked for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::bf16::{self, Panels, Precision};
use crate::matrix::{Factor, multiply};

/// Products of fewer multiplications are f32 at any precision: packing would take as long as they do.
const ROUNDED_FROM: usize = 1 << 21;

/// What a tape, or an optimiser's step, multiplies by.
#[derive(Debug, Default)]
pub(crate) struct Products {
    rounds: bool,
    /// Weights that were multiplied by, and by whether they were transposed: a recurrence has the same at every step. Kept
    /// from the second time on, since a deep network has many that come once.
    panels: BTreeMap<(String, bool), Option<Panels>>,
}

impl Products {
    pub(crate) fn at(precision: Precision) -> Self {
        Self { rounds: precision.rounds(), panels: BTreeMap::new() }
    }

    fn rounds(&self, sizes: [usize; 3]) -> bool {
        self.rounds && sizes.iter().product::<usize>() >= ROUNDED_FROM
    }

    /// As [`multiply`]: `a` is `[m, k]`, `b` `[k, n]`.
    pub(crate) fn of_values(&self, a: Factor<'_>, b: Factor<'_>, out: &mut [f32], sizes: [usize; 3], adds: bool) {
        if !self.rounds(sizes) {
            return multiply(a, b, out, sizes, adds);
        }
        let [m, k, n] = sizes;
        bf16::multiply(&Panels::left(a, m, k), &Panels::right(b, k, n), out, adds);
    }

    /// As [`multiply`], `b` the weight of this name, which is the same whenever it is asked for.
    pub(crate) fn by_weight(
        &mut self,
        a: Factor<'_>,
        (name, b): (&str, Factor<'_>),
        out: &mut [f32],
        sizes: [usize; 3],
        adds: bool,
    ) {
        if !self.rounds(sizes) {
            return multiply(a, b, out, sizes, adds);
        }
        let [m, k, n] = sizes;
        let key = (name.to_owned(), matches!(b, Factor::Transposed(_)));
        let (left, right) = (Panels::left(a, m, k), || Panels::right(b, k, n));
        match self.panels.entry(key) {
            Entry::Vacant(first) => {
                first.insert(None);
                bf16::multiply(&left, &right(), out, adds);
            }
            Entry::Occupied(again) => bf16::multiply(&left, again.into_mut().get_or_insert_with(right), out, adds),
        }
    }
}
