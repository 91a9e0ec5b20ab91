//! Labels beside what they name: as near as can be, in the same order, never one over another.

/// Tops for labels of these `heights` that would each like to be centred at its place of `wanted`, which ascend.
///
/// The labels keep their order, do not overlap, and lie in `0..=room`, which must hold them all; the sum of squared
/// moves is the least there is. It is isotonic regression, solved by pooling neighbours that would collide.
pub(super) fn spread(wanted: &[f32], heights: &[f32], room: f32) -> Vec<f32> {
    assert_eq!(wanted.len(), heights.len(), "one height a label");
    let total: f32 = heights.iter().sum();
    assert!(total <= room + 1e-3, "labels of {total} do not fit into {room}");
    // With the heights before it taken off, a label's top may be anything not below its predecessor's.
    let mut before = 0.0;
    let mut pools: Vec<(f32, usize)> = Vec::new();
    for (&centre, &height) in wanted.iter().zip(heights) {
        let mut pool = (centre - height / 2.0 - before, 1);
        while let Some(&(mean, n)) = pools.last()
            && mean >= pool.0
        {
            pool = ((mean * n as f32 + pool.0 * pool.1 as f32) / (n + pool.1) as f32, n + pool.1);
            pools.pop();
        }
        pools.push(pool);
        before += height;
    }
    let slack = (room - total).max(0.0);
    let free = pools.iter().flat_map(|&(mean, n)| std::iter::repeat_n(mean.clamp(0.0, slack), n));
    let mut before = 0.0;
    free.zip(heights)
        .map(|(top, height)| {
            let top = top + before;
            before += height;
            top
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_stay_where_they_can() {
        let check = |wanted: &[f32], height: f32, room: f32, expected: &[f32]| {
            let tops = spread(wanted, &vec![height; wanted.len()], room);
            let near = tops.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-3);
            assert!(near && tops.len() == expected.len(), "{tops:?} {expected:?}");
        };
        check(&[], 10.0, 100.0, &[]);
        check(&[20.0, 60.0], 10.0, 100.0, &[15.0, 55.0]);
        check(&[20.0, 20.0], 10.0, 100.0, &[10.0, 20.0]);
        check(&[0.0, 1.0], 10.0, 100.0, &[0.0, 10.0]);
        check(&[99.0, 100.0], 10.0, 100.0, &[80.0, 90.0]);
        check(&[50.0, 50.0, 50.0], 10.0, 30.0, &[0.0, 10.0, 20.0]);
    }

    proptest::proptest! {
        #[test]
        fn labels_never_overlap_nor_leave(
            mut labels in proptest::collection::vec((-50.0..500.0f32, 1.0..60.0f32), 0..20),
            slack in 0.0..300.0f32,
        ) {
            labels.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (wanted, heights): (Vec<f32>, Vec<f32>) = labels.into_iter().unzip();
            let room = heights.iter().sum::<f32>() + slack;
            let tops = spread(&wanted, &heights, room);
            let mut floor = -1e-2;
            for (top, height) in tops.iter().zip(&heights) {
                assert!(*top >= floor - 1e-2, "{tops:?}");
                floor = top + height;
            }
            assert!(floor <= room + 1e-2, "{floor} {room}");
        }
    }
}
