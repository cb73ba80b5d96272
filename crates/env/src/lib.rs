//! Exact simulators, renderers and planner-free policies.
