//! What is asked of an index: vectors, each with a weight and a measure.

use crate::dots::QUERY_MOST;
use crate::vectors::stride;

/// How a query vector is compared with a region's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Inner product: words, as the alignment model was trained (equation 8).
    Product,
    /// Cosine of the angle: regions with regions, whose lengths say how sure a region is and not what it shows.
    Cosine,
}

/// Query vectors, ready for every encoding of stored ones.
///
/// A photo's score is the sum over query vectors of weight times the best value with any of its regions.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    dim: usize,
    /// `[terms, stride]`.
    pub(crate) floats: Vec<f32>,
    /// `[terms, stride]`, within ±1023; times `factors` they are `floats`.
    pub(crate) shorts: Vec<i16>,
    pub(crate) factors: Vec<f32>,
    pub(crate) weights: Vec<f32>,
    pub(crate) measures: Vec<Measure>,
}

impl Query {
    /// No vectors yet, of length `dim`.
    pub fn new(dim: usize) -> Self {
        assert!(dim > 0, "vectors have a length");
        let (floats, shorts, factors) = (Vec::new(), Vec::new(), Vec::new());
        Self { dim, floats, shorts, factors, weights: Vec::new(), measures: Vec::new() }
    }

    /// Words compared by inner product, all of one weight: `[words, dim]`.
    pub fn words(dim: usize, words: &[f32], weight: f32) -> Self {
        let mut query = Self::new(dim);
        words.chunks_exact(dim).for_each(|word| query.push(word, Measure::Product, weight));
        query
    }

    /// Adds one vector. A negative weight turns photos away that have it.
    pub fn push(&mut self, vector: &[f32], measure: Measure, weight: f32) {
        assert_eq!(vector.len(), self.dim, "query vectors of the index's length");
        assert!(weight.is_finite() && vector.iter().all(|x| x.is_finite()), "finite numbers");
        let length = vector.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt() as f32;
        let scale = match measure {
            Measure::Product => 1.0,
            Measure::Cosine if length > 0.0 => 1.0 / length,
            Measure::Cosine => 0.0,
        };
        let end = self.floats.len() + stride(self.dim);
        let most = scale * vector.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let factor = if most > 0.0 { most / QUERY_MOST } else { 1.0 };
        self.floats.extend(vector.iter().map(|x| x * scale));
        self.shorts.extend(vector.iter().map(|x| (x * scale / factor).round() as i16));
        self.floats.resize(end, 0.0);
        self.shorts.resize(end, 0);
        self.factors.push(factor);
        self.weights.push(weight);
        self.measures.push(measure);
    }

    /// The vectors' weights.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Multiplies the weights of some vectors.
    pub fn scale(&mut self, terms: std::ops::Range<usize>, factor: f32) {
        assert!(factor.is_finite(), "finite weights");
        self.weights[terms].iter_mut().for_each(|weight| *weight *= factor);
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }
}
