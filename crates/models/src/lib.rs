//! World models: one method, one file.
//!
//! [`jepa`] holds the full-size network that PLDM and LeWM share; [`pldm`] and [`lewm`] are their objectives,
//! [`losses`] the single terms. [`goal`] holds the networks of goal-conditioned policies, which [`gcbc`], [`iq_learn`],
//! [`gciql`], [`gcivl`] and [`hilp`] train. [`encoders`] are frozen image encoders with published weights, read by
//! [`state_dict`]. [`parity`] compares all of it with the reference's numbers.

pub mod compact;
pub mod dino_wm;
pub mod encoders;
pub mod gcbc;
pub mod gciql;
pub mod gcivl;
pub mod goal;
pub mod hilp;
pub mod iq_learn;
pub mod jepa;
pub mod lewm;
pub mod losses;
pub mod mae;
pub mod parity;
pub mod patch_decoder;
pub mod planning;
pub mod pldm;
pub mod policy;
mod pool;
pub mod preprocess;
pub mod state_dict;
