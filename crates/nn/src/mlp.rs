//! Multi-layer perceptron of offline goal-conditioned RL (OGBench, Park et al. 2024): linear layers with GELU and layer
//! norm, then a linear output.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::blocks::Linear;
use crate::norm::LayerNorm;
use crate::{Init, Scope};

/// Sizes of the hidden part of an [`Mlp`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlpConfig {
    /// Width of hidden layers.
    pub hidden: usize,
    /// Number of hidden layers.
    pub layers: usize,
    /// Whether a layer norm follows every activation.
    pub layer_norm: bool,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self { hidden: 512, layers: 3, layer_norm: true }
    }
}

/// Epsilon of the norms.
pub const EPS: f64 = 1e-5;

/// The perceptron: (linear, GELU, layer norm) for every hidden layer, then linear.
#[derive(Clone, Debug)]
pub struct Mlp {
    hidden: Vec<(Linear, Option<LayerNorm>)>,
    output: Linear,
}

impl Mlp {
    /// `{key}.layers.{i}`, `{key}.norms.{i}` and `{key}.out`; weights start uniform with variance `1 / fan_avg`, those of
    /// the output with `gain` times that variance, biases at 0.
    pub fn new(
        scope: &mut Scope,
        key: &str,
        [inputs, outputs]: [usize; 2],
        gain: f32,
        config: MlpConfig,
    ) -> Self {
        let linear = |scope: &mut Scope, key: &str, [inputs, outputs]: [usize; 2], gain: f32| {
            let bound = (6.0 * gain / (inputs + outputs) as f32).sqrt();
            Linear::with_init(scope, key, [inputs, outputs], Init::Uniform(bound), Init::Constant(0.0))
        };
        let mut width = inputs;
        let mut hidden = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let layer = linear(scope, &format!("{key}.layers.{i}"), [width, config.hidden], 1.0);
            width = config.hidden;
            let norm =
                config.layer_norm.then(|| LayerNorm::new(scope, &format!("{key}.norms.{i}"), width, EPS));
            hidden.push((layer, norm));
        }
        Self { hidden, output: linear(scope, &format!("{key}.out"), [width, outputs], gain) }
    }

    /// `[.., in]` to `[.., out]`.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.hidden.iter().fold(x, |x, (layer, norm)| {
            let x = layer.forward_gelu(x);
            norm.as_ref().map_or_else(|| x.clone(), |norm| norm.forward(x.clone()))
        });
        self.output.forward(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Params;
    use crate::params::{from_vec, to_vec};

    #[test]
    fn layers_are_linear_gelu_norm_and_the_output_starts_small() {
        let config = MlpConfig { hidden: 2, layers: 1, layer_norm: true };
        let build = |scope: &mut Scope| Mlp::new(scope, "net", [1, 1], 1e-2, config);
        let mut params = Params::init(3, build);
        let output = params.get("net.out.weight").unwrap();
        assert!(output.iter().all(|w| w.abs() <= (0.06f32 / 3.0).sqrt()));
        let keys: Vec<_> = params.entries().iter().map(|e| e.key.as_str()).collect();
        assert_eq!(
            keys[..4],
            ["net.layers.0.weight", "net.layers.0.bias", "net.norms.0.weight", "net.norms.0.bias"]
        );
        params.get_mut("net.layers.0.weight").unwrap().copy_from_slice(&[1.0, -2.0]);
        params.get_mut("net.out.weight").unwrap().copy_from_slice(&[3.0, 1.0]);
        let device = crate::device("cpu").unwrap().inner();
        let (mlp, _) = params.bind(&device, build).unwrap();
        let y = to_vec(mlp.forward(from_vec(vec![1.0], [1, 1], &device))).unwrap()[0];
        // GELU gives 0.8413447 and -0.0455003; the norm of two numbers is +-1 up to epsilon.
        let half = (0.841_344_7f32 + 0.045_500_3) / 2.0;
        let unit = half / (half * half + 1e-5).sqrt();
        assert!((y - 2.0 * unit).abs() < 1e-5, "{y}");
    }
}
