//! Importers of foreign data sets.

pub mod lerobot;

mod legacy;
