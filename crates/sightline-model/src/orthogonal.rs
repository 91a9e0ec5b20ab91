//! The orthogonal matrix nearest to a given one, roughly: what the optimiser Muon makes of a momentum.

use crate::bf16::Precision;
use crate::matrix::{Factor, Matrix};
use crate::products::Products;

/// Coefficients of the odd polynomial of fifth degree that drives singular values towards 1 fast, and leaves them between
/// about 0.7 and 1.2 (Jordan et al. 2024, "Muon").
const COEFFICIENTS: [f32; 3] = [3.4445, -4.7750, 2.0315];
/// How often it is applied.
const ITERATIONS: usize = 5;

/// The singular values of `matrix` brought near 1, its singular vectors kept, by Newton and Schulz's iteration. A matrix of
/// zeros stays one. Large products are rounded as [`Precision::Bf16`] says, which is what the coefficients were made for.
pub fn orthogonalized(matrix: &Matrix) -> Matrix {
    let norm = matrix.values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt() as f32;
    let scale = 1.0 / (norm + 1e-20);
    let (rows, columns) = (matrix.rows, matrix.columns);
    let wide = rows <= columns;
    let (short, long) = if wide { (rows, columns) } else { (columns, rows) };
    let mut x: Vec<f32> = matrix.values.iter().map(|x| x * scale).collect();
    let [mut gram, mut square] = [(); 2].map(|()| vec![0.0; short * short]);
    let mut next = vec![0.0; x.len()];
    let [a, b, c] = COEFFICIENTS;
    let products = Products::at(Precision::Bf16);
    for _ in 0..ITERATIONS {
        if wide {
            products.of_values(Factor::Plain(&x), Factor::Transposed(&x), &mut gram, [short, long, short], false);
        } else {
            products.of_values(Factor::Transposed(&x), Factor::Plain(&x), &mut gram, [short, long, short], false);
        }
        products.of_values(Factor::Plain(&gram), Factor::Plain(&gram), &mut square, [short; 3], false);
        square.iter_mut().zip(&gram).for_each(|(square, gram)| *square = b * gram + c * *square);
        next.iter_mut().zip(&x).for_each(|(next, x)| *next = a * x);
        let [left, right] = if wide { [&square, &x] } else { [&x, &square] };
        products.of_values(
            Factor::Plain(left),
            Factor::Plain(right),
            &mut next,
            [rows, left.len() / rows, columns],
            true,
        );
        std::mem::swap(&mut x, &mut next);
    }
    Matrix::new(rows, columns, x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    #[test]
    fn singular_values_come_near_one() {
        for (rows, columns) in [(6, 40), (40, 6), (12, 12), (130, 200)] {
            let values = random::uniform_values(&mut random::stream(3, 1), rows * columns, 0.01);
            let near = orthogonalized(&Matrix::new(rows, columns, values.clone()));
            // Of an orthogonal matrix the products of each two of the shorter side's vectors are 0, and each with itself 1.
            let at = |m: &[f32], i: usize, j: usize| f64::from(m[i * columns + j]);
            let short = rows.min(columns);
            let gram = |i: usize, j: usize| -> f64 {
                if rows <= columns {
                    (0..columns).map(|k| at(&near.values, i, k) * at(&near.values, j, k)).sum()
                } else {
                    (0..rows).map(|k| at(&near.values, k, i) * at(&near.values, k, j)).sum()
                }
            };
            if rows != columns {
                for i in 0..short {
                    assert!((0.5..1.6).contains(&gram(i, i)), "[{rows}, {columns}] {i}: {}", gram(i, i));
                    assert!((0..i).all(|j| gram(i, j).abs() < 0.4), "[{rows}, {columns}] {i}");
                }
            }
            // The singular vectors stay: the product with the original is as large as its nuclear norm, nearly.
            let inner: f64 = near.values.iter().zip(&values).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let norm = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            assert!(inner > norm, "[{rows}, {columns}]: {inner} of {norm}");
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        assert_eq!(orthogonalized(&Matrix::zeros(3, 5)), Matrix::zeros(3, 5));
    }
}
