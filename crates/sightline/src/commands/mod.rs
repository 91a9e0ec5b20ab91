//! One file a command: its arguments, and what it does with them.

pub mod align;
pub mod caption;
pub mod dataset;
pub mod eval;
pub mod eval_captions;
pub mod features;
pub mod index;
pub mod meteor_data;
pub mod search;
pub mod serve;
pub mod train;
