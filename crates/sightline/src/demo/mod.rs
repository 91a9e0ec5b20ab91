//! `sightline demo`: a world small enough to learn in minutes, drawn on the spot.

pub mod scenes;
