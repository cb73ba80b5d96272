//! Protocols, runner, statistics, reports, and the policies that need the true simulator.
