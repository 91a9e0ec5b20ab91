//! What is done to pictures by chance, so that a network does not learn them by heart.

/// Turns left and right about, in a square of `side` cells of `channels` numbers.
pub(crate) fn flip(cells: &mut [f32], side: usize, channels: usize) {
    for row in cells.chunks_exact_mut(side * channels) {
        for left in 0..side / 2 {
            let (a, b) = row.split_at_mut((side - 1 - left) * channels);
            a[left * channels..(left + 1) * channels].swap_with_slice(&mut b[..channels]);
        }
    }
}

/// Changes brightness (added), contrast about the mean, and the colours' distance from grey (factors).
pub(crate) fn recolour(pixels: &mut [f32], brightness: f32, contrast: f32, saturation: f32) {
    let mean = pixels.iter().sum::<f32>() / pixels.len() as f32;
    for pixel in pixels.chunks_exact_mut(3) {
        let grey = (pixel[0] + pixel[1] + pixel[2]) / 3.0;
        for x in pixel {
            let coloured = grey + saturation * (*x - grey);
            *x = (mean + contrast * (coloured - mean) + brightness).clamp(-1.0, 1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flipping_twice_changes_nothing() {
        let cells: Vec<f32> = (0..5 * 5 * 2).map(|i| i as f32).collect();
        let mut flipped = cells.clone();
        flip(&mut flipped, 5, 2);
        assert_eq!(flipped[..2], cells[8..10]);
        assert_eq!(flipped[4..6], cells[4..6]);
        flip(&mut flipped, 5, 2);
        assert_eq!(flipped, cells);
    }

    #[test]
    fn colours_change_as_asked() {
        let pixels = [0.5, -0.5, 0.0, -0.5, 0.5, 0.0];
        let changed = |brightness, contrast, saturation| {
            let mut own = pixels;
            recolour(&mut own, brightness, contrast, saturation);
            own
        };
        assert_eq!(changed(0.0, 1.0, 1.0), pixels);
        assert_eq!(changed(0.25, 1.0, 1.0)[..3], [0.75, -0.25, 0.25]);
        assert_eq!(changed(0.0, 1.0, 0.0), [0.0; 6]);
        assert_eq!(changed(0.0, 4.0, 1.0)[..3], [1.0, -1.0, 0.0]);
    }
}
