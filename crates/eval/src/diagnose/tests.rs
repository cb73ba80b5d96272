//! Diagnosis of a model whose latent is the state itself and whose dynamics predict no change.

use worldbench_plan::{Cost, CostError, Objective, WorldModel};

use super::*;
use crate::protocol;

/// Reads the state off the pixels that show it: in this test the frame is not looked at, the clip's proprioception
/// is all that it knows.
struct AgentOnly;

impl WorldModel for AgentOnly {
    fn resolution(&self) -> usize {
        16
    }

    fn area_filter(&self) -> bool {
        true
    }

    fn action_block(&self) -> usize {
        5
    }

    fn max_history(&self) -> usize {
        1
    }

    fn problem<'a>(&'a self, _: &Context, _: Objective) -> Result<Box<dyn Cost + 'a>, CostError> {
        Err("not used".into())
    }

    fn decode_block(&self, block: &[f32], actions: &mut [f32]) {
        actions.iter_mut().zip(block).for_each(|(a, b)| *a = 0.2 * b);
    }
}

impl LatentModel for AgentOnly {
    fn embedding(&self) -> usize {
        2
    }

    fn parts(&self) -> Vec<worldbench_plan::Part> {
        vec![worldbench_plan::Part::whole(2)]
    }

    fn latents(&self, _: &[Vec<u8>], proprio: &[[f64; 4]]) -> Result<Vec<f32>, CostError> {
        Ok(proprio.iter().flat_map(|p| [p[0] as f32, p[1] as f32]).collect())
    }

    fn rollout(&self, context: &Context, shape: Shape, candidates: &[f32]) -> Result<Vec<f32>, CostError> {
        let now = context.proprio[context.proprio.len() - 1];
        let steps = candidates.len() / shape.dim;
        Ok([now[0] as f32, now[1] as f32].repeat(steps))
    }

    fn encode_block(&self, block: &mut [f32]) {
        block.iter_mut().for_each(|b| *b *= 5.0);
    }
}

#[test]
fn the_parts_of_a_model_are_told_apart() {
    let protocol = Protocol::find(protocol::DEFAULT, "push_t").unwrap();
    let mut manifest = protocol.manifest(protocol::Split::Dev).unwrap();
    manifest.pairs.truncate(24);
    let solver = toml::from_str("kind = \"cem\"\nsamples = 24\niterations = 3\ntopk = 6").unwrap();
    let config = PlannerConfig { solver, ..PlannerConfig::default() };
    let model: Arc<dyn LatentModel> = Arc::new(AgentOnly);
    let report = diagnose(&model, &config, &protocol, &manifest, 8, &|_| ()).unwrap();
    assert_eq!(report.frames, [16 * 26, 8 * 26]);
    // The agent is read exactly, the block not at all.
    assert!(report.probe[0].median < 1.0 && report.probe[2].rms > 20.0, "{:?}", report.probe);
    assert_eq!(report.open_loop.len(), 5);
    assert!(report.open_loop.iter().all(|e| (e - 1.0).abs() < 1e-6), "{:?}", report.open_loop);
    // A model that predicts no change ranks nothing.
    assert_eq!(report.rank_correlation, [0.0; 3]);
    assert_eq!(report.swap.len(), 4);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("diagnosis.png");
    report.write_picture(&path).unwrap();
    assert!(path.metadata().unwrap().len() > 1000);
    assert!(serde_json::to_string(&report).unwrap().contains("rank_correlation"));
    assert!(diagnose(&model, &config, &protocol, &manifest, 24, &|_| ()).is_err());
}

#[test]
fn ranks_ignore_monotone_maps_and_share_ties() {
    let a = [3.0, 1.0, 2.0, 5.0];
    assert!((spearman(&a, &a.map(f64::exp)) - 1.0).abs() < 1e-12);
    assert!((spearman(&a, &a.map(|v| -v)) + 1.0).abs() < 1e-12);
    assert_eq!(ranks(&[2.0, 1.0, 2.0]), [1.5, 0.0, 1.5]);
    assert_eq!(spearman(&a, &[1.0; 4]), 0.0);
}
