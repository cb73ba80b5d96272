//! Importers of foreign data sets, and the exporter to HDF5.

pub mod hdf5;
pub mod lerobot;

mod legacy;
