//! Vectors in, ranked ids and word-to-region evidence out. No tensor framework, no async.
