//! The program's library half, so that tests reach what the commands use.

pub mod backbones;
pub mod cli;
pub mod commands;
pub mod demo;
pub mod describe;
pub mod download;
pub mod index;
pub mod interrupt;
pub mod models;
pub mod panels;
pub mod places;
pub mod report;
pub mod server;
pub mod sources;
pub mod ui;
