//! The program's library half, so that tests reach what the commands use.

pub mod demo;
