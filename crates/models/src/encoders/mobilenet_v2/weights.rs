//! The convolutions of a MobileNetV2 file in execution order, whichever names it gives them.

use super::{Error, IMAGE_MEAN, IMAGE_STD, STEM, Shape, StateDict};

/// PyTorch's default of batch normalisation.
const EPS: f64 = 1e-5;

/// Whose names and conventions a file follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `features.1.conv.0.0`: torchvision.
    Torchvision,
    /// `blocks.0.0.conv_dw`: timm.
    Timm,
    /// `01_dw`: TensorFlow's network, batch normalisation already folded.
    TensorFlow,
}

impl Layout {
    const ALL: [Self; 3] = [Self::Torchvision, Self::Timm, Self::TensorFlow];

    /// Rows and columns of zeros before an even image: SAME puts them behind where the stride is 2.
    pub fn before(self, stride: usize) -> usize {
        usize::from(self != Self::TensorFlow || stride == 1)
    }

    /// What the network reads for a byte of channel `c`.
    pub fn normalised(self, byte: u8, c: usize) -> f32 {
        match self {
            Self::TensorFlow => f32::from(byte) / 127.5 - 1.0,
            _ => (f32::from(byte) / 255.0 - IMAGE_MEAN[c]) / IMAGE_STD[c],
        }
    }

    fn anchor(self) -> &'static str {
        match self {
            Self::Torchvision => "features.0.0.weight",
            Self::Timm => "conv_stem.weight",
            Self::TensorFlow => "00_conv.weight",
        }
    }

    /// Whether `key` belongs to the classifier or counts batches, and is not needed.
    fn ignored(self, key: &str) -> bool {
        let head: &[&str] = match self {
            Self::Torchvision => &["features.18.", "classifier."],
            Self::Timm => &["conv_head.", "bn2.", "classifier."],
            Self::TensorFlow => &["51_conv.", "52_conv."],
        };
        key.ends_with(".num_batches_tracked") || head.iter().any(|head| key.starts_with(head))
    }

    /// All convolutions but the classifier's, in execution order.
    pub fn convolutions(self, blocks: &[Shape]) -> Vec<Convolution> {
        let (name, norm) = self.names(0, None);
        let mut all = vec![Convolution { name, norm, shape: [STEM, 3, 3, 3] }];
        for (i, block) in blocks.iter().enumerate() {
            for (part, shape) in block.parts() {
                let (name, norm) = self.names(all.len(), Some((i, block, part)));
                all.push(Convolution { name, norm, shape });
            }
        }
        all
    }

    /// Keys and shapes of one convolution.
    fn keys(self, c: &Convolution) -> Vec<(String, Vec<usize>)> {
        let mut keys = vec![(format!("{}.weight", c.name), c.shape.to_vec())];
        let outputs = vec![c.shape[0]];
        if self == Self::TensorFlow {
            keys.push((format!("{}.bias", c.name), outputs));
        } else {
            keys.extend(NORM.map(|part| (format!("{}.{part}", c.norm), outputs.clone())));
        }
        keys
    }

    /// Names of convolution and batch normalisation for part `part` (0 expansion, 1 depthwise, 2 projection) of
    /// block `block`, or of the stem; `index` counts convolutions.
    fn names(self, index: usize, part: Option<(usize, &Shape, usize)>) -> (String, String) {
        match (self, part) {
            (Self::Torchvision, None) => ("features.0.0".into(), "features.0.1".into()),
            (Self::Timm, None) => ("conv_stem".into(), "bn1".into()),
            (Self::TensorFlow, part) => {
                let kind = if part.is_some_and(|(_, _, part)| part == 1) { "dw" } else { "conv" };
                (format!("{index:02}_{kind}"), String::new())
            }
            (Self::Torchvision, Some((block, shape, part))) => {
                let at = if shape.expands() { part } else { part - 1 };
                let key = format!("features.{}.conv", block + 1);
                if part == 2 {
                    (format!("{key}.{at}"), format!("{key}.{}", at + 1))
                } else {
                    (format!("{key}.{at}.0"), format!("{key}.{at}.1"))
                }
            }
            (Self::Timm, Some((_, shape, part))) => {
                let (stage, i) = shape.place;
                // A block without expansion calls its projection conv_pw.
                let names = if shape.expands() {
                    [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
                } else {
                    [("", ""), ("conv_dw", "bn1"), ("conv_pw", "bn2")]
                };
                let (convolution, norm) = names[part];
                (format!("blocks.{stage}.{i}.{convolution}"), format!("blocks.{stage}.{i}.{norm}"))
            }
        }
    }
}

impl Shape {
    fn expands(&self) -> bool {
        self.hidden != self.inputs
    }

    /// Weight shapes of its parts, with their numbers.
    fn parts(&self) -> Vec<(usize, [usize; 4])> {
        let all = [
            (0, [self.hidden, self.inputs, 1, 1]),
            (1, [self.hidden, 1, 3, 3]),
            (2, [self.outputs, self.hidden, 1, 1]),
        ];
        all.into_iter().filter(|&(part, _)| part > 0 || self.expands()).collect()
    }
}

/// Names of a convolution and its batch normalisation, and the weight's shape `[outputs, inputs, kernel, kernel]`.
#[derive(Debug)]
pub(super) struct Convolution {
    pub name: String,
    norm: String,
    shape: [usize; 4],
}

/// The weights of a file whose keys were checked.
pub(super) struct Convolutions {
    pub layout: Layout,
    /// How many tensors fit.
    pub report: String,
    convolutions: Vec<Convolution>,
    weights: StateDict,
}

const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];

impl Convolutions {
    /// Finds out the layout and checks every key and shape.
    pub fn new(blocks: &[Shape], weights: StateDict) -> Result<Self, Error> {
        let holds = |layout: &Layout| weights.tensors().keys().any(|key| key.ends_with(layout.anchor()));
        let layout = Layout::ALL.into_iter().find(holds).ok_or_else(|| {
            let known = Layout::ALL.map(Layout::anchor).join("`, `");
            Error::Config(format!(
                "{} is no MobileNetV2: it has none of `{known}`; give a file of torchvision, timm or the \
                 dequantised TensorFlow network",
                weights.source()
            ))
        })?;
        let weights = weights.part(layout.anchor());
        let convolutions = layout.convolutions(blocks);
        let keys: Vec<_> = convolutions.iter().flat_map(|convolution| layout.keys(convolution)).collect();
        let report = weights.check(&keys, |key| layout.ignored(key))?;
        Ok(Self { layout, report, convolutions, weights })
    }

    /// Weight and bias of convolution `i` with its batch normalisation folded in, in f64.
    pub fn folded(&self, i: usize) -> (Vec<f32>, Vec<f32>) {
        let get = |key: String| self.weights.get(&key).map_or(&[][..], |tensor| tensor.values.as_slice());
        let Convolution { name, norm, .. } = &self.convolutions[i];
        let mut weight = get(format!("{name}.weight")).to_vec();
        if self.layout == Layout::TensorFlow {
            return (weight, get(format!("{name}.bias")).to_vec());
        }
        let [gamma, beta, mean, variance] = NORM.map(|part| get(format!("{norm}.{part}")));
        let mut bias = Vec::with_capacity(beta.len());
        let row = weight.len() / beta.len();
        for (i, row) in weight.chunks_exact_mut(row).enumerate() {
            let scale = f64::from(gamma[i]) / (f64::from(variance[i]) + EPS).sqrt();
            row.iter_mut().for_each(|w| *w = (f64::from(*w) * scale) as f32);
            bias.push((f64::from(beta[i]) - f64::from(mean[i]) * scale) as f32);
        }
        (weight, bias)
    }

    /// All but the stem's, in execution order.
    pub fn after_stem(&self) -> impl Iterator<Item = (Vec<f32>, Vec<f32>)> {
        (1..self.convolutions.len()).map(|i| self.folded(i))
    }

    /// See [`StateDict::digest`].
    pub fn digest(&self, settings: &str) -> String {
        self.weights.digest(settings)
    }
}

#[cfg(test)]
mod tests;
