//! Selective Search on real photos.

mod common;

use rayon::prelude::*;
use sightline_vision::Photo;
use sightline_vision::regions::selective_search::Ranking;
use sightline_vision::regions::{RegionProposer, SelectiveSearch, n_covered};

#[test]
fn recall_on_real_photos() {
    let Some(coco) = common::shared("data/coco_mini") else { return };
    let photos = common::coco_objects(&coco);
    let recall = |search: &SelectiveSearch| -> [f64; 2] {
        let covered: Vec<[usize; 3]> = photos
            .par_iter()
            .map(|(path, objects)| {
                let proposals = search.propose("", &Photo::open(path).unwrap(), 50).unwrap();
                let top = &proposals[..proposals.len().min(19)];
                [n_covered(top, objects, 0.5), n_covered(&proposals, objects, 0.5), objects.len()]
            })
            .collect();
        let sums = covered.iter().fold([0; 3], |sum: [usize; 3], c| std::array::from_fn(|i| sum[i] + c[i]));
        [sums[0] as f64 / sums[2] as f64, sums[1] as f64 / sums[2] as f64]
    };
    let paper = SelectiveSearch { ranking: Ranking::Paper { seed: 1 }, ..SelectiveSearch::default() };
    let [agreement, paper] = [recall(&SelectiveSearch::default()), recall(&paper)];
    eprintln!("Selective Search recall at IoU 0.5, top 19 and top 50: agreement {agreement:.3?}, paper {paper:.3?}");
    assert!(agreement[0] > 0.215 && agreement[1] > 0.315, "{agreement:?}");
    assert!(agreement[0] > paper[0], "{agreement:?} {paper:?}");
}
