//! The small parity fixtures, compiled in so that `selftest` runs on any machine.

use std::path::Path;

use anyhow::{Context, Result};

macro_rules! fixtures {
    ($($path:literal,)*) => {
        &[$(($path, include_bytes!(concat!("../../../tests/fixtures/", $path)))),*]
    };
}

/// (path in the fixture layout, contents).
const FILES: &[(&str, &[u8])] = fixtures![
    "env/pusht/episodes/I_scaled_weak_f32.json",
    "env/pusht/episodes/I_wall_f64.json",
    "env/pusht/episodes/L_absolute_f64.json",
    "env/pusht/episodes/T_edge_f64.json",
    "env/pusht/episodes/T_scaled_weak_f64.json",
    "env/pusht/episodes/T_wall_f32.json",
    "env/pusht/episodes/Z_explicit_f64.json",
    "env/pusht/episodes/Z_success_f32.json",
    "env/pusht/episodes/plus_overlap_weak_f32.json",
    "env/pusht/episodes/plus_scaled_weak_f32.json",
    "env/pusht/episodes/polyagent_T.json",
    "env/pusht/episodes/polyagent_plus.json",
    "env/pusht/episodes/small_tee_reseat_f32.json",
    "env/pusht/episodes/small_tee_weak_f32.json",
    "env/pusht/episodes/square_rand_f32.json",
    "env/pusht/frames/I_wall_f64_14.png",
    "env/pusht/frames/I_wall_f64_14_canvas512.png",
    "env/pusht/frames/I_weak_f32_30.png",
    "env/pusht/frames/I_weak_f32_30_canvas512.png",
    "env/pusht/frames/L_weak_f32_30.png",
    "env/pusht/frames/L_weak_f32_30_canvas512.png",
    "env/pusht/frames/T_wall_f64_14.png",
    "env/pusht/frames/T_wall_f64_14_canvas512.png",
    "env/pusht/frames/T_weak_f32_30.png",
    "env/pusht/frames/T_weak_f32_30_canvas512.png",
    "env/pusht/frames/Z_wall_f64_14.png",
    "env/pusht/frames/Z_wall_f64_14_canvas512.png",
    "env/pusht/frames/Z_weak_f32_30.png",
    "env/pusht/frames/Z_weak_f32_30_canvas512.png",
    "env/pusht/frames/frames.json",
    "env/pusht/frames/plus_weak_f32_30.png",
    "env/pusht/frames/plus_weak_f32_30_canvas512.png",
    "env/pusht/frames/small_tee_weak_f32_30.png",
    "env/pusht/frames/small_tee_weak_f32_30_canvas512.png",
    "env/pusht/frames/square_weak_f32_30.png",
    "env/pusht/frames/square_weak_f32_30_canvas512.png",
    "env/pusht/frames/varied_0.png",
    "env/pusht/frames/varied_0_canvas512.png",
    "env/pusht/frames/varied_1.png",
    "env/pusht/frames/varied_1_canvas512.png",
    "env/pusht/frames/varied_2.png",
    "env/pusht/frames/varied_2_canvas512.png",
    "env/pusht/frames/varied_3.png",
    "env/pusht/frames/varied_3_canvas512.png",
    "env/pusht/frames/varied_4.png",
    "env/pusht/frames/varied_4_canvas512.png",
    "env/pusht/frames/varied_5.png",
    "env/pusht/frames/varied_5_canvas512.png",
    "env/pusht/seeds.json",
    "models/dinov2_small_rule.json",
    "models/dinov2_small_rule.safetensors",
    "models/dinov2_small_rule.tol.json",
    "models/dinov2_tiny/config.json",
    "models/dinov2_tiny/model.safetensors",
    "models/dinov2_tiny_io.safetensors",
    "models/dinov2_tiny_io.tol.json",
    "env/tworoom/episodes/border_0.json",
    "env/tworoom/episodes/bump_wall_2.json",
    "env/tworoom/episodes/door_edge_0.json",
    "env/tworoom/episodes/door_edge_1.json",
    "env/tworoom/episodes/expert_0.json",
    "env/tworoom/episodes/expert_3.json",
    "env/tworoom/episodes/expert_noise_0.json",
    "env/tworoom/episodes/fast_overclamp_0.json",
    "env/tworoom/episodes/horizontal_bump_3.json",
    "env/tworoom/episodes/horizontal_expert_0.json",
    "env/tworoom/episodes/inside_wall_start_1.json",
    "env/tworoom/episodes/multi_door_1.json",
    "env/tworoom/episodes/random_2.json",
    "env/tworoom/episodes/thick_radius_2.json",
    "env/tworoom/frames/bump_wall_17.png",
    "env/tworoom/frames/door_edge_17.png",
    "env/tworoom/frames/expert_17.png",
    "env/tworoom/frames/expert_noise_17.png",
    "env/tworoom/frames/fast_overclamp_17.png",
    "env/tworoom/frames/frames.json",
    "env/tworoom/frames/horizontal_bump_17.png",
    "env/tworoom/frames/horizontal_expert_17.png",
    "env/tworoom/frames/inside_wall_start_17.png",
    "env/tworoom/frames/multi_door_17.png",
    "env/tworoom/frames/thick_radius_17.png",
    "env/tworoom/frames/varied_0.png",
    "env/tworoom/frames/varied_1.png",
    "env/tworoom/frames/varied_2.png",
    "env/tworoom/frames/varied_3.png",
    "env/tworoom/frames/varied_4.png",
    "env/tworoom/frames/varied_5.png",
    "env/tworoom/seeds.json",
    "models/eval_starts.json",
    "models/gcrl.safetensors",
    "models/gcrl.tol.json",
    "models/image_preprocess.safetensors",
    "models/image_preprocess.tol.json",
    "models/lr_schedules.json",
    "models/planners.json",
    "models/planners.safetensors",
    "models/planners.tol.json",
    "models/dinowm_predictor.safetensors",
    "models/dinowm_predictor.tol.json",
    "models/pldm.safetensors",
    "models/pldm.tol.json",
    "models/pldm_zero_grad_params.json",
];

/// Writes all fixtures below `root`, in their usual layout.
pub fn unpack(root: &Path) -> Result<()> {
    for (path, bytes) in FILES {
        let path = root.join(path);
        crate::output::make_parent(&path)?;
        std::fs::write(&path, bytes).with_context(|| {
            format!("cannot write {}; set TMPDIR to a directory with room", path.display())
        })?;
    }
    Ok(())
}
