//! Network blocks, weights, optimisers and schedules on Burn, with fused CPU operations.
