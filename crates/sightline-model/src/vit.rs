//! The vision transformer (Dosovitskiy et al. 2021) over the [`tape`](crate::tape): to learn with, and for photos on a
//! processor. On cards `sightline-vision` computes the same network over the tensor framework.

use serde::{Deserialize, Serialize};

use crate::matrix::Matrix;
use crate::tape::{Activation, Tape, Var};

/// What the weights alone do not say of a network.
///
/// Weights that take part, by name: `patch_embedding`, `prefix` `[tokens, dim]` (none in networks without a class token),
/// `positions` `[patches, dim]`, `pre_norm` (CLIP's alone), of every block `norm1`, `qkv` (queries, keys and values side by
/// side), `attention_out`, `scale1` (layer scale, where there is), `norm2`, `fc1`, `fc2`, `scale2`, and `norm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VisionTransformer {
    /// Blocks of attention and a perceptron.
    pub depth: usize,
    /// Heads of every attention.
    pub heads: usize,
    /// Added to the variance in every layer normalisation.
    pub epsilon: f32,
    /// The nonlinearity of the perceptrons.
    pub activation: Activation,
}

/// Which parts of which blocks a step leaves out (stochastic depth, Huang et al. 2016).
#[derive(Debug, Clone)]
pub struct Depths {
    /// For every block its attention's and its perceptron's factor of each picture: 0, or what keeps the mean.
    pub factors: Vec<[Vec<f32>; 2]>,
}

impl VisionTransformer {
    /// Patches of some pictures, `[pictures · patches, 3 · patch²]` by channel, row and column, to normed tokens,
    /// `[pictures · (prefix + patches), dim]`.
    pub fn forward(&self, tape: &mut Tape<'_>, patches: Matrix, pictures: usize, depths: Option<&Depths>) -> Var {
        let n_patches = patches.rows / pictures;
        let x = tape.constant(patches);
        let x = tape.linear(x, "patch_embedding");
        let mut x = tape.add_tiled(x, "positions");
        if tape.has("prefix") {
            x = tape.prepend(x, "prefix", n_patches);
        }
        let tokens = tape.value(x).rows / pictures;
        if tape.has("pre_norm.weight") {
            x = tape.layer_norm_by(x, "pre_norm", self.epsilon);
        }
        for block in 0..self.depth {
            let factors = |part: usize| depths.map(|depths| depths.factors[block][part].clone());
            let name = |part: &str| format!("blocks.{block}.{part}");
            let y = tape.layer_norm_by(x, &name("norm1"), self.epsilon);
            let y = tape.linear(y, &name("qkv"));
            let y = tape.attend_among(y, tokens, self.heads);
            let y = tape.linear(y, &name("attention_out"));
            x = residual(tape, x, y, &name("scale1"), factors(0));
            let y = tape.layer_norm_by(x, &name("norm2"), self.epsilon);
            let y = tape.linear(y, &name("fc1"));
            let y = tape.activate(y, self.activation);
            let y = tape.linear(y, &name("fc2"));
            x = residual(tape, x, y, &name("scale2"), factors(1));
            tape.forget_all_but(&mut x);
        }
        tape.layer_norm_by(x, "norm", self.epsilon)
    }
}

/// `x + y`, with `y` scaled by the weight `scale` where there is one, and by a factor a picture.
fn residual(tape: &mut Tape<'_>, x: Var, mut y: Var, scale: &str, factors: Option<Vec<f32>>) -> Var {
    if tape.has(scale) {
        y = tape.scale_columns(y, scale);
    }
    if let Some(factors) = factors {
        y = tape.scale_groups(y, factors);
    }
    tape.add(x, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bf16::Precision;
    use crate::random::{self, Dropout};
    use crate::weights::{Weight, Weights};

    const DIM: usize = 8;

    fn weights() -> Weights {
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("patch_embedding.weight".into(), vec![12, DIM]),
            ("patch_embedding.bias".into(), vec![DIM]),
            ("prefix".into(), vec![2, DIM]),
            ("positions".into(), vec![4, DIM]),
        ];
        let mut block = |block: usize, part: &str, sizes: &[usize]| {
            shapes.push((format!("blocks.{block}.{part}.weight"), sizes.to_vec()));
            shapes.push((format!("blocks.{block}.{part}.bias"), sizes[sizes.len() - 1..].to_vec()));
        };
        for i in 0..2 {
            block(i, "norm1", &[DIM]);
            block(i, "qkv", &[DIM, 3 * DIM]);
            block(i, "attention_out", &[DIM, DIM]);
            block(i, "norm2", &[DIM]);
            block(i, "fc1", &[DIM, 16]);
            block(i, "fc2", &[16, DIM]);
        }
        shapes.extend(["norm.weight", "norm.bias", "blocks.1.scale1"].map(|name| (name.to_owned(), vec![DIM])));
        let weight = |(i, (name, shape)): (usize, (String, Vec<usize>))| {
            let values = random::uniform_values(&mut random::stream(4, i as u64), shape.iter().product(), 0.5);
            (name, Weight { shape, values })
        };
        shapes.into_iter().enumerate().map(weight).collect()
    }

    const NETWORK: VisionTransformer =
        VisionTransformer { depth: 2, heads: 2, epsilon: 1e-6, activation: Activation::Gelu };

    fn patches(pictures: usize) -> Matrix {
        let values = random::uniform_values(&mut random::stream(4, 99), pictures * 4 * 12, 1.0);
        Matrix::new(pictures * 4, 12, values)
    }

    #[test]
    fn derivatives_are_differences() {
        let mut weights = weights();
        let factors = random::uniform_values(&mut random::stream(4, 100), 2 * 6 * DIM, 1.0);
        let depths = Depths { factors: vec![[vec![1.0, 1.0], vec![0.0, 2.0]], [vec![2.0, 0.0], vec![1.0, 1.0]]] };
        let sum = |weights: &Weights| -> f64 {
            let mut tape = Tape::forward_only(weights);
            let tokens = NETWORK.forward(&mut tape, patches(2), 2, Some(&depths));
            let tokens = &tape.value(tokens).values;
            tokens.iter().zip(&factors).map(|(x, f)| f64::from(x * f)).sum()
        };
        let mut dropout = Dropout::new(random::stream(1, 1), 0.0);
        let mut tape = Tape::training(&weights, &mut dropout, Precision::F32);
        let tokens = NETWORK.forward(&mut tape, patches(2), 2, Some(&depths));
        tape.seed(tokens, factors.clone());
        let gradients = tape.backward();
        assert_eq!(gradients.keys().collect::<Vec<_>>(), weights.keys().collect::<Vec<_>>());
        for (name, gradient) in gradients {
            for i in (0..gradient.values.len()).step_by(7) {
                let old = weights[&name].values[i];
                let mut at = |x: f32| {
                    weights.get_mut(&name).unwrap().values[i] = x;
                    sum(&weights)
                };
                let expected = (at(old + 1e-2) - at(old - 1e-2)) / 2e-2;
                at(old);
                let got = f64::from(gradient.values[i]);
                assert!((got - expected).abs() < 5e-3 * (1.0 + expected.abs()), "{name}[{i}]: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn a_picture_without_its_parts_passes_unchanged() {
        let weights = weights();
        let run = |factor: f32| {
            let depths = Depths { factors: vec![[vec![factor], vec![factor]]; 2] };
            let mut tape = Tape::forward_only(&weights);
            let tokens = NETWORK.forward(&mut tape, patches(1), 1, Some(&depths));
            tape.value(tokens).clone()
        };
        let mut tape = Tape::forward_only(&weights);
        let whole = NETWORK.forward(&mut tape, patches(1), 1, None);
        assert_eq!(*tape.value(whole), run(1.0));
        // Nothing but the embedding and the last norm: tokens of one patch do not feel the others.
        let mut other = patches(1);
        other.values[12..].fill(0.3);
        let mut tape = Tape::forward_only(&weights);
        let depths = Depths { factors: vec![[vec![0.0], vec![0.0]]; 2] };
        let tokens = NETWORK.forward(&mut tape, other, 1, Some(&depths));
        assert_eq!(tape.value(tokens).row(2), run(0.0).row(2));
    }
}
