//! EfficientNet-Lite: Tan and Le, 2019, without squeeze-and-excitation and with ReLU6, as published for phones.
//!
//! Pictures are NHWC. Batch norms use their running statistics always. The network can run in two pieces:
//! what comes before the first trained block is the same at every step and need not run twice.

use serde::{Deserialize, Serialize};

use super::tower::Midway;
use super::weights::Weights;
use crate::backend::{Result, Tensor, Window};

/// The shape of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Channels of the stem.
    pub stem_channels: usize,
    /// Channels of the last convolution: the width of the features.
    pub head_channels: usize,
    /// The blocks, in order.
    pub blocks: Vec<BlockConfig>,
    /// Of the batch norms.
    pub batch_norm_eps: f32,
    /// Blocks whose averages over the positions stand in the features before the head's, ascending. Early layers
    /// keep colour and shape, which a network trained on photographs has thrown away at its end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pooled_blocks: Vec<usize>,
}

/// One inverted residual block. Sandler et al., 2018.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockConfig {
    /// Size of the depth-wise kernel.
    pub kernel: usize,
    /// Its step.
    pub stride: usize,
    /// How much wider the inside is.
    pub expand: usize,
    /// Channels in.
    pub input: usize,
    /// Channels out.
    pub output: usize,
}

impl Config {
    /// EfficientNet-Lite0.
    pub fn lite0() -> Self {
        let stages = [
            (1, 3, 1, 1, 32, 16),
            (2, 3, 2, 6, 16, 24),
            (2, 5, 2, 6, 24, 40),
            (3, 3, 2, 6, 40, 80),
            (3, 5, 1, 6, 80, 112),
            (4, 5, 2, 6, 112, 192),
            (1, 3, 1, 6, 192, 320),
        ];
        let mut blocks = Vec::new();
        for (repeats, kernel, stride, expand, input, output) in stages {
            for i in 0..repeats {
                let (stride, input) = if i == 0 { (stride, input) } else { (1, output) };
                blocks.push(BlockConfig { kernel, stride, expand, input, output });
            }
        }
        Self { stem_channels: 32, head_channels: 1280, blocks, batch_norm_eps: 1e-3, pooled_blocks: vec![] }
    }
}

/// A network ready to run: what is not a matrix, prepared once.
pub struct Network<T: Tensor> {
    prefix: String,
    stem: T,
    stem_norm: Norm<T>,
    blocks: Vec<Block<T>>,
    pooled: Vec<usize>,
    head_norm: Norm<T>,
}

struct Block<T: Tensor> {
    config: BlockConfig,
    expand_norm: Option<Norm<T>>,
    /// [k, k, channels]
    depthwise: T,
    depthwise_norm: Norm<T>,
    project_norm: Norm<T>,
}

/// A batch norm as a scale and a shift.
struct Norm<T: Tensor> {
    scale: T,
    shift: T,
}

const RELU6: (f32, f32) = (0.0, 6.0);
const NO_CLAMP: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

impl<T: Tensor> Network<T> {
    /// Prepares a network whose weights' names begin with `prefix`.
    pub fn new(weights: &Weights<T>, config: &Config, prefix: &str) -> Result<Self> {
        let norm = |module: &str| Norm::new(weights, &format!("{prefix}{module}"), config.batch_norm_eps);
        let mut blocks = Vec::new();
        for (i, block) in config.blocks.iter().enumerate() {
            let weight = weights.get(&format!("{prefix}_blocks.{i}._depthwise_conv.weight"))?;
            let channels = weight.shape()[0];
            blocks.push(Block {
                config: *block,
                expand_norm: if block.expand == 1 { None } else { Some(norm(&format!("_blocks.{i}._bn0"))?) },
                depthwise: last_axis_first(
                    weight,
                    [channels, block.kernel * block.kernel],
                    &[block.kernel, block.kernel, channels],
                )?,
                depthwise_norm: norm(&format!("_blocks.{i}._bn1"))?,
                project_norm: norm(&format!("_blocks.{i}._bn2"))?,
            });
        }
        // [out, in, 3, 3] -> [out, 3 * 3 * in], as patches are laid out.
        let stem = weights.get(&format!("{prefix}_conv_stem.weight"))?;
        let out = stem.shape()[0];
        let stem = stem.reshape(&[out, 3, 9])?.swap_axes(1, 2)?.reshape(&[out, 27])?;
        let pooled = config.pooled_blocks.clone();
        Ok(Self { prefix: prefix.to_owned(), stem, stem_norm: norm("_bn0")?, blocks, pooled, head_norm: norm("_bn1")? })
    }

    /// How many blocks there are.
    pub fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// Pictures [n, size, size, 3] through the stem and the blocks before `until`.
    pub fn prefix(&self, weights: &Weights<T>, pictures: &T, until: usize) -> Result<Midway<T>> {
        let [n, h, w, _] = shape4(pictures);
        let window = Window::same(h, w, 3, 2);
        let Norm { scale, shift } = &self.stem_norm;
        let x = pictures.patches(window)?.linear_scale_shift(&self.stem, scale, shift, RELU6.0, RELU6.1)?;
        let x = x.reshape(&[n, window.out_h, window.out_w, self.stem.shape()[0]])?;
        self.blocks(weights, Midway { x, averages: None }, 0, until)
    }

    /// The blocks from `from` and the head: -> [n, features], the averages of the pooled blocks and of the head.
    pub fn tail(&self, weights: &Weights<T>, midway: Midway<T>, from: usize) -> Result<T> {
        let midway = self.blocks(weights, midway, from, self.blocks.len())?;
        let x = self.head_norm.after(weights, &format!("{}_conv_head", self.prefix), &midway.x, RELU6)?;
        Ok(midway.and(average(&x)?)?.averages.expect("just added"))
    }

    fn blocks(&self, weights: &Weights<T>, mut midway: Midway<T>, from: usize, until: usize) -> Result<Midway<T>> {
        for i in from..until {
            midway.x = self.block(weights, &midway.x, i)?;
            if self.pooled.contains(&i) {
                let pooled = average(&midway.x)?;
                midway = midway.and(pooled)?;
            }
        }
        Ok(midway)
    }

    fn block(&self, weights: &Weights<T>, x: &T, i: usize) -> Result<T> {
        let block = &self.blocks[i];
        let name = |module: &str| format!("{}_blocks.{i}.{module}", self.prefix);
        let mut y = x.clone();
        if let Some(norm) = &block.expand_norm {
            y = norm.after(weights, &name("_expand_conv"), &y, RELU6)?;
        }
        let [_, h, w, _] = shape4(&y);
        let window = Window::same(h, w, block.config.kernel, block.config.stride);
        let Norm { scale, shift } = &block.depthwise_norm;
        y = y.depthwise_scale_shift(&block.depthwise, window, scale, shift, RELU6.0, RELU6.1)?;
        y = block.project_norm.after(weights, &name("_project_conv"), &y, NO_CLAMP)?;
        let residual = block.config.stride == 1 && block.config.input == block.config.output;
        if residual { x.add(&y) } else { Ok(y) }
    }
}

impl<T: Tensor> Midway<T> {
    fn and(self, pooled: T) -> Result<Self> {
        let averages = match self.averages {
            Some(before) => T::concat(&[before, pooled], 1)?,
            None => pooled,
        };
        Ok(Self { averages: Some(averages), ..self })
    }
}

impl<T: Tensor> Norm<T> {
    fn new(weights: &Weights<T>, module: &str, eps: f32) -> Result<Self> {
        let get = |part: &str| weights.get(&format!("{module}.{part}"))?.to_f32();
        let (gamma, beta, mean, variance) = (get("weight")?, get("bias")?, get("running_mean")?, get("running_var")?);
        let scale: Vec<f32> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let shift: Vec<f32> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok(Self { scale: T::from_f32(&scale, &[scale.len()])?, shift: T::from_f32(&shift, &[shift.len()])? })
    }

    /// The norm of what the module `name` makes of x.
    fn after(&self, weights: &Weights<T>, name: &str, x: &T, (low, high): (f32, f32)) -> Result<T> {
        weights.linear_scale_shift(name, x, (&self.scale, &self.shift), low, high)
    }
}

/// [n, h, w, c] -> [n, c]
fn average<T: Tensor>(x: &T) -> Result<T> {
    let [n, h, w, c] = shape4(x);
    x.reshape(&[n, h * w, c])?.sum(1)?.reshape(&[n, c])?.affine(1.0 / (h * w) as f64, 0.0)
}

fn last_axis_first<T: Tensor>(weight: &T, flat: [usize; 2], shape: &[usize]) -> Result<T> {
    weight.reshape(&flat)?.swap_axes(0, 1)?.reshape(shape)
}

fn shape4<T: Tensor>(x: &T) -> [usize; 4] {
    x.shape().try_into().expect("a batch of pictures has four axes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lite0_has_sixteen_blocks() {
        let config = Config::lite0();
        assert_eq!(config.blocks.len(), 16);
        assert_eq!(config.blocks[11], BlockConfig { kernel: 5, stride: 2, expand: 6, input: 112, output: 192 });
        assert_eq!(config.blocks[15], BlockConfig { kernel: 3, stride: 1, expand: 6, input: 192, output: 320 });
    }
}
