//! The perceptron of `nn::mlp` on packed weights.

use worldbench_kernels::gemm::Activation;
use worldbench_nn::mlp::{EPS, MlpConfig};

use crate::planning::Error;
use crate::planning::weights::{Dense, Norm, Reader};

/// (linear, GELU, layer norm) for every hidden layer, then linear.
#[derive(Debug)]
pub(super) struct PackedMlp {
    hidden: Vec<(Dense, Option<Norm>)>,
    output: Dense,
}

impl PackedMlp {
    pub fn new(
        reader: Reader,
        key: &str,
        [inputs, outputs]: [usize; 2],
        config: MlpConfig,
    ) -> Result<Self, Error> {
        let mut width = inputs;
        let mut hidden = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let layer = Dense::new(reader, &format!("{key}.layers.{i}"), width, config.hidden)?;
            width = config.hidden;
            let norm = || Norm::new(reader, &format!("{key}.norms.{i}"), width, EPS as f32);
            hidden.push((layer, config.layer_norm.then(norm).transpose()?));
        }
        Ok(Self { hidden, output: Dense::new(reader, &format!("{key}.out"), width, outputs)? })
    }

    /// One row `[in]` to `[out]`.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        for (layer, norm) in &self.hidden {
            let mut y = vec![0.0; layer.outputs()];
            layer.apply(1, &x, &mut y, Activation::Gelu);
            x = match norm {
                Some(norm) => {
                    let mut normal = vec![0.0; y.len()];
                    norm.apply(&y, &mut normal);
                    normal
                }
                None => y,
            };
        }
        let mut out = vec![0.0; self.output.outputs()];
        self.output.apply(1, &x, &mut out, Activation::Identity);
        out
    }
}
