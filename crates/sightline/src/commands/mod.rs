//! One file a command: its arguments, and what it does with them.

pub mod align;
pub mod caption;
pub mod dataset;
pub mod decode_picture;
pub mod eval;
mod eval_ablation;
mod eval_boxes;
pub mod eval_caption;
pub mod eval_captions;
mod eval_grounding;
pub mod eval_regions;
mod eval_split;
mod eval_words;
pub mod features;
pub mod index;
pub mod meteor_data;
pub mod pack;
pub mod pull;
pub mod search;
pub mod serve;
pub mod train;
mod train_seeds;
pub mod training;
