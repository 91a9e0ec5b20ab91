//! MobileNetV2 (Sandler et al. 2018) under torchvision's names: a convolutional network, to be put beside a transformer.

use std::path::Path;

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData, module::conv2d};
use safetensors::SafeTensors;

use super::vit::{IMAGENET_MEAN, IMAGENET_STD, floats};
use super::weights::{self, Reader};
use super::{Backbone, FeatureMap, file_stem, write_planes};
use crate::{Error, Filter, Photo, Result};

/// Side of the square input in pixels.
const INPUT: usize = 224;
/// Pixels along a side of a cell of the map, at most: from there on a stride becomes a dilation (DeepLab, Chen et al.
/// 2017), so that the map has 14 by 14 cells where the network was trained with 7 by 7.
pub(super) const CELL: usize = 16;
/// Strides of the seventeen bottlenecks, which no shape tells.
const STRIDES: [usize; 17] = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1];
/// torchvision's, in batch normalisations that are not folded.
const EPSILON: f32 = 1e-5;
/// Where ReLU6 ends.
const HIGHEST: f32 = 6.0;

/// A convolution, its batch normalisation folded into it.
#[derive(Debug)]
struct Convolution {
    /// `[outputs, inputs / groups, kernel, kernel]`
    weight: Tensor<4>,
    /// `[outputs]`
    bias: Tensor<1>,
    options: ConvOptions<2>,
    /// Whether ReLU6 follows.
    clipped: bool,
}

impl Convolution {
    /// `[batch, inputs, height, width]` to `[batch, outputs, height / stride, width / stride]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = conv2d(x, self.weight.clone(), Some(self.bias.clone()), self.options.clone());
        if self.clipped { y.clamp(0.0, HIGHEST) } else { y }
    }
}

/// Convolutions one after the other; what goes in may be added to what comes out.
#[derive(Debug)]
struct Stage {
    convolutions: Vec<Convolution>,
    residual: bool,
}

impl Stage {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let y = self.convolutions.iter().fold(x.clone(), |y, convolution| convolution.forward(y));
        if self.residual { x + y } else { y }
    }
}

/// What a convolution has beside its weights.
#[derive(Debug, Clone, Copy)]
struct Place {
    stride: usize,
    dilation: usize,
    /// Whether every channel is alone, or sees all others.
    depthwise: bool,
    clipped: bool,
}

impl Place {
    const POINTWISE: Self = Self { stride: 1, dilation: 1, depthwise: false, clipped: true };
}

/// Reads convolutions one after the other, each as wide as the one before it says.
struct Builder<'a> {
    reader: Reader<'a>,
    path: &'a Path,
    device: &'a Device,
    /// Channels that go into the next convolution.
    channels: usize,
}

impl Builder<'_> {
    /// The convolution of this name and, where the file has it, the batch normalisation behind it.
    fn convolution(&mut self, name: &str, norm: &str, place: Place) -> Result<Convolution> {
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let shape = self.reader.shape(&weight_name)?;
        let inputs = if place.depthwise { 1 } else { self.channels };
        let (outputs, kernel) = match shape[..] {
            [outputs, i, kernel, k]
                if i == inputs
                    && kernel == k
                    && kernel % 2 == 1
                    && outputs > 0
                    && (!place.depthwise || outputs == self.channels) =>
            {
                (outputs, kernel)
            }
            _ => {
                let outputs = if place.depthwise { self.channels.to_string() } else { "outputs".to_owned() };
                let expected = format!("[{outputs}, {inputs}, kernel, kernel]");
                return Err(self.reader.wrong_shape(&weight_name, &expected, &shape));
            }
        };
        let mut weight = self.reader.take(&weight_name, &shape)?;
        let normed = self.reader.has(&format!("{norm}.running_var"));
        let mut bias = if !normed || self.reader.has(&bias_name) {
            self.reader.take(&bias_name, &[outputs])?
        } else {
            vec![0.0; outputs]
        };
        if normed {
            let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
                .map(|part| self.reader.take(&format!("{norm}.{part}"), &[outputs]));
            let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
            if variance.iter().any(|v| *v < 0.0) {
                return Err(Error::weights(self.path, format!("tensor `{norm}.running_var` has a number below 0")));
            }
            for (channel, weight) in weight.chunks_exact_mut(inputs * kernel * kernel).enumerate() {
                let scale = gamma[channel] / (variance[channel] + EPSILON).sqrt();
                weight.iter_mut().for_each(|w| *w *= scale);
                bias[channel] = beta[channel] + (bias[channel] - mean[channel]) * scale;
            }
        }
        let groups = if place.depthwise { self.channels } else { 1 };
        let padding = place.dilation * (kernel / 2);
        self.channels = outputs;
        Ok(Convolution {
            weight: Tensor::from_data(TensorData::new(weight, [outputs, inputs, kernel, kernel]), self.device),
            bias: Tensor::from_data(TensorData::new(bias, [outputs]), self.device),
            options: ConvOptions::new([place.stride; 2], [padding; 2], [place.dilation; 2], groups),
            clipped: place.clipped,
        })
    }

    /// An inverted bottleneck: wider by a product, each channel with its neighbours, narrower by another product.
    fn bottleneck(&mut self, index: usize, stride: usize, dilation: usize, residual: bool) -> Result<Stage> {
        let name = format!("features.{index}.conv");
        let inputs = self.channels;
        // The first of torchvision's is as wide inside as outside and so lacks the first product.
        let widened = self.reader.has(&format!("{name}.1.0.weight"));
        let mut convolutions = Vec::with_capacity(3);
        if widened {
            convolutions.push(self.convolution(&format!("{name}.0.0"), &format!("{name}.0.1"), Place::POINTWISE)?);
        }
        let at = usize::from(widened);
        let around = Place { stride, dilation, depthwise: true, clipped: true };
        convolutions.push(self.convolution(&format!("{name}.{at}.0"), &format!("{name}.{at}.1"), around)?);
        let narrow = Place { clipped: false, ..Place::POINTWISE };
        convolutions.push(self.convolution(&format!("{name}.{}", at + 1), &format!("{name}.{}", at + 2), narrow)?);
        Ok(Stage { convolutions, residual: residual && inputs == self.channels })
    }
}

/// A loaded MobileNetV2: a [`Backbone`] whose patches are its last map before the mean, and whose global vector is the
/// map's mean.
#[derive(Debug)]
pub struct MobileNetV2 {
    name: String,
    checksum: String,
    stages: Vec<Stage>,
    dim: usize,
    cell: usize,
    device: Device,
}

impl MobileNetV2 {
    /// Whether a file holds this network, by its tensors' names.
    pub(super) fn is_in(tensors: &SafeTensors<'_>) -> bool {
        ["features.0.0.weight", "features.1.conv.0.0.weight", "features.18.0.weight"]
            .iter()
            .all(|name| tensors.tensor(name).is_ok())
    }

    /// Reads a safetensors file with torchvision's names, of any width, batch normalisations folded or not; a cell is to
    /// be `cell` pixels wide, at least 2.
    ///
    /// Fails where the file is not safetensors, is cut short, lacks a tensor, or holds one of another shape than the
    /// others ask for.
    pub(super) fn of_file(path: &Path, bytes: &[u8], cell: usize, device: &Device) -> Result<Self> {
        let tensors = weights::tensors(path, bytes)?;
        let mut builder = Builder { reader: Reader::new(path, &tensors, ""), path, device, channels: 3 };
        let first = Place { stride: 2, dilation: 1, depthwise: false, clipped: true };
        let single = |convolution| Stage { convolutions: vec![convolution], residual: false };
        let mut stages = vec![single(builder.convolution("features.0.0", "features.0.1", first)?)];
        let (mut reached, mut dilation) = (2, 1);
        for (block, stride) in STRIDES.into_iter().enumerate() {
            let dense = reached * stride > cell;
            let taken = if dense { 1 } else { stride };
            stages.push(builder.bottleneck(block + 1, taken, dilation, stride == 1)?);
            reached *= taken;
            dilation *= if dense { stride } else { 1 };
        }
        let last = builder.convolution("features.18.0", "features.18.1", Place::POINTWISE)?;
        stages.push(single(last));
        Ok(Self {
            name: file_stem(path),
            checksum: sightline_data::checksum::of_bytes(bytes),
            stages,
            dim: builder.channels,
            cell: reached,
            device: device.clone(),
        })
    }
}

impl Backbone for MobileNetV2 {
    fn name(&self) -> &str {
        &self.name
    }

    fn checksum(&self) -> &str {
        &self.checksum
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn settings(&self) -> Vec<(String, String)> {
        let cell = self.cell;
        vec![(
            "mobilenet_v2".to_owned(),
            format!("input {INPUT}, cell {cell}, mean {IMAGENET_MEAN:?}, std {IMAGENET_STD:?}"),
        )]
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        if photos.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = Vec::with_capacity(photos.len() * 3 * INPUT * INPUT);
        for photo in photos {
            let input = photo.resize(INPUT as u32, INPUT as u32, Filter::Bicubic);
            write_planes(&input, IMAGENET_MEAN, IMAGENET_STD, &mut values);
        }
        let data = TensorData::new(values, [photos.len(), 3, INPUT, INPUT]);
        let x = Tensor::<4>::from_data(data, &self.device);
        let map = self.stages.iter().fold(x, |x, stage| stage.forward(x)); // [batch, dim, grid, grid]
        let [_, dim, grid_h, grid_w] = map.dims();
        let values = floats(map.into_data());
        Ok(values.chunks_exact(dim * grid_h * grid_w).map(|map| FeatureMap::of_planes(grid_h, grid_w, map)).collect())
    }
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::super::tests::{Tensors, shared, values};
    use super::super::weights::tests::file;
    use super::*;

    /// Channels behind the stem, the seventeen bottlenecks and the last product.
    const WIDTHS: [usize; 19] = [4, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 8, 8, 8, 9, 10];

    /// A tiny network as torchvision saves it, every convolution with its batch normalisation.
    fn normed() -> Tensors {
        let mut tensors = Tensors::new();
        let mut add = |name: String, shape: &[usize], middle: f32, spread: f32| {
            let drawn = values(&name, shape.iter().product(), spread);
            tensors.push((name, shape.to_vec(), drawn.into_iter().map(|v| middle + v).collect()));
        };
        let mut convolution = |name: String, norm: String, shape: [usize; 4]| {
            add(format!("{name}.weight"), &shape, 0.0, 2.0 / (shape[1] * shape[2] * shape[3]) as f32);
            for (part, middle, spread) in
                [("weight", 1.5, 0.5), ("bias", 0.3, 0.5), ("running_mean", 0.0, 0.2), ("running_var", 1.0, 0.5)]
            {
                add(format!("{norm}.{part}"), &shape[..1], middle, spread);
            }
        };
        let numbered = |i: usize, at: &str| format!("features.{i}.{at}");
        convolution(numbered(0, "0"), numbered(0, "1"), [WIDTHS[0], 3, 3, 3]);
        for i in 1..=17 {
            let (inputs, outputs) = (WIDTHS[i - 1], WIDTHS[i]);
            let mut at = 0;
            let inside = if i == 1 { inputs } else { 2 * inputs };
            if i > 1 {
                convolution(numbered(i, "conv.0.0"), numbered(i, "conv.0.1"), [inside, inputs, 1, 1]);
                at = 1;
            }
            convolution(numbered(i, &format!("conv.{at}.0")), numbered(i, &format!("conv.{at}.1")), [inside, 1, 3, 3]);
            convolution(
                numbered(i, &format!("conv.{}", at + 1)),
                numbered(i, &format!("conv.{}", at + 2)),
                [outputs, inside, 1, 1],
            );
        }
        convolution(numbered(18, "0"), numbered(18, "1"), [WIDTHS[18], WIDTHS[17], 1, 1]);
        tensors
    }

    /// Planes `[channels, side, side]`.
    struct Planes {
        side: usize,
        values: Vec<f64>,
    }

    /// The network written down once more, number by number and with its batch normalisations.
    struct Oracle<'a> {
        tensors: &'a Tensors,
    }

    impl Oracle<'_> {
        fn tensor(&self, name: &str) -> &(String, Vec<usize>, Vec<f32>) {
            self.tensors.iter().find(|(own, ..)| own == name).unwrap()
        }

        fn convolution(&self, x: &Planes, names: [String; 2], stride: usize, dilation: usize, clipped: bool) -> Planes {
            let [name, norm] = names;
            let (_, shape, weight) = self.tensor(&format!("{name}.weight"));
            let [outputs, inputs, kernel, _] = shape[..] else { panic!("{shape:?}") };
            let depthwise = inputs == 1;
            let part = |part: &str, channel: usize| f64::from(self.tensor(&format!("{norm}.{part}")).2[channel]);
            let side = x.side / stride;
            let mut y = Vec::new();
            for output in 0..outputs {
                for cell in 0..side * side {
                    let mut sum = 0.0;
                    for input in 0..inputs {
                        let channel = if depthwise { output } else { input };
                        for tap in 0..kernel * kernel {
                            let at = |place: usize, tap: usize| {
                                let moved = (place * stride + tap * dilation).checked_sub(kernel / 2 * dilation)?;
                                (moved < x.side).then_some(moved)
                            };
                            let row = at(cell / side, tap / kernel);
                            let column = at(cell % side, tap % kernel);
                            if let (Some(row), Some(column)) = (row, column) {
                                let w = weight[(output * inputs + input) * kernel * kernel + tap];
                                sum += f64::from(w) * x.values[(channel * x.side + row) * x.side + column];
                            }
                        }
                    }
                    let scale = part("weight", output) / (part("running_var", output) + 1e-5).sqrt();
                    let normed = (sum - part("running_mean", output)) * scale + part("bias", output);
                    y.push(if clipped { normed.clamp(0.0, 6.0) } else { normed });
                }
            }
            Planes { side, values: y }
        }

        fn forward(&self, x: &Planes) -> Planes {
            let names =
                |i: usize, conv: &str, norm: &str| [format!("features.{i}.{conv}"), format!("features.{i}.{norm}")];
            let mut x = self.convolution(x, names(0, "0", "1"), 2, 1, true);
            for i in 1..=17 {
                let halves = [2, 4, 7].contains(&i);
                let (stride, dilation) = (if halves { 2 } else { 1 }, if i > 14 { 2 } else { 1 });
                let y = if i == 1 {
                    let y = self.convolution(&x, names(1, "conv.0.0", "conv.0.1"), 1, 1, true);
                    self.convolution(&y, names(1, "conv.1", "conv.2"), 1, 1, false)
                } else {
                    let y = self.convolution(&x, names(i, "conv.0.0", "conv.0.1"), 1, 1, true);
                    let y = self.convolution(&y, names(i, "conv.1.0", "conv.1.1"), stride, dilation, true);
                    self.convolution(&y, names(i, "conv.2", "conv.3"), 1, 1, false)
                };
                let residual = !halves && i != 14 && WIDTHS[i - 1] == WIDTHS[i];
                x = if residual {
                    Planes { side: y.side, values: x.values.iter().zip(&y.values).map(|(x, y)| x + y).collect() }
                } else {
                    y
                };
            }
            self.convolution(&x, names(18, "0", "1"), 1, 1, true)
        }
    }

    /// A picture of the input's size, of which no two rows or columns are alike.
    fn picture() -> Photo {
        let mut photo = Photo::uniform(INPUT as u32, INPUT as u32, [0; 3]);
        for (i, level) in photo.pixels.iter_mut().enumerate() {
            let (channel, column, row) = (i % 3, i / 3 % INPUT, i / 3 / INPUT);
            *level = ((row * (channel + 2) + column * 3 + row * column / 40) % 256) as u8;
        }
        photo
    }

    fn tiny(tensors: &Tensors) -> Result<MobileNetV2> {
        MobileNetV2::of_file(Path::new("tiny.safetensors"), &file(tensors, Dtype::F32), CELL, &Device::flex())
    }

    #[test]
    fn the_network_is_what_it_says_number_by_number() {
        let (tensors, photo) = (normed(), picture());
        let mut pixels = Vec::new();
        write_planes(&photo, IMAGENET_MEAN, IMAGENET_STD, &mut pixels);
        let input = Planes { side: INPUT, values: pixels.into_iter().map(f64::from).collect() };
        let expected = Oracle { tensors: &tensors }.forward(&input);
        let network = tiny(&tensors).unwrap();
        let map = network.encode_map(&[Photo::uniform(50, 30, [9, 80, 200]), photo]).unwrap().pop().unwrap();
        assert_eq!((map.grid_h, map.grid_w, map.dim, network.dim()), (14, 14, 10, 10));
        assert_eq!((expected.side, expected.values.len()), (14, 10 * 14 * 14));
        let mut different = 0;
        for (cell, numbers) in map.patches.chunks_exact(10).enumerate() {
            for (channel, &number) in numbers.iter().enumerate() {
                let expected = expected.values[channel * 14 * 14 + cell];
                assert!(
                    (f64::from(number) - expected).abs() < 1e-4,
                    "{channel}, {cell}: {number}, expected {expected}"
                );
                different += usize::from((number - map.global[channel]).abs() > 0.01);
            }
        }
        assert!(different > 400, "{different} numbers of 1,960 say where they are");
    }

    #[test]
    fn folded_normalisations_are_the_same_network() {
        let tensors = normed();
        let part = |name: String| tensors.iter().find(|(own, ..)| *own == name).map(|(.., values)| values);
        let mut folded = Tensors::new();
        for (name, shape, weight) in &tensors {
            let Some(name) = name.strip_suffix(".weight").filter(|_| shape.len() == 4) else { continue };
            let (before, last) = name.rsplit_once('.').unwrap();
            let norm = format!("{before}.{}", last.parse::<usize>().unwrap() + 1);
            let of = |name: &str| part(format!("{norm}.{name}")).unwrap();
            let scales: Vec<f32> =
                of("weight").iter().zip(of("running_var")).map(|(g, v)| g / (v + EPSILON).sqrt()).collect();
            let each = weight.len() / shape[0];
            let scaled = weight.iter().enumerate().map(|(i, w)| w * scales[i / each]).collect();
            let bias = (0..shape[0]).map(|c| of("bias")[c] - of("running_mean")[c] * scales[c]).collect();
            folded.push((format!("{name}.weight"), shape.clone(), scaled));
            folded.push((format!("{name}.bias"), shape[..1].to_vec(), bias));
        }
        let maps = [&tensors, &folded].map(|tensors| tiny(tensors).unwrap().encode_map(&[picture()]).unwrap());
        for (a, b) in maps[0][0].patches.iter().zip(&maps[1][0].patches) {
            assert!((a - b).abs() < 1e-4, "{a}, folded {b}");
        }
    }

    #[test]
    fn broken_files_are_named_with_their_tensor() {
        let broken = |change: &dyn Fn(&mut Tensors)| {
            let mut tensors = normed();
            change(&mut tensors);
            tiny(&tensors).unwrap_err().to_string()
        };
        let message = broken(&|tensors| tensors.retain(|(name, ..)| name != "features.9.conv.2.weight"));
        assert!(message.contains("`features.9.conv.2.weight` is missing"), "{message}");
        let message = broken(&|tensors| tensors.retain(|(name, ..)| !name.starts_with("features.9.conv.3")));
        assert!(message.contains("`features.9.conv.2.bias` is missing"), "{message}");
        let message = broken(&|tensors| {
            let (_, shape, _) = tensors.iter_mut().find(|(name, ..)| name == "features.5.conv.1.0.weight").unwrap();
            shape.swap(0, 1);
        });
        assert!(
            message.contains("`features.5.conv.1.0.weight`") && message.contains("[10, 1, kernel, kernel]"),
            "{message}"
        );
        let message = broken(&|tensors| {
            let (.., values) = tensors.iter_mut().find(|(name, ..)| name == "features.3.conv.0.1.running_var").unwrap();
            values[1] = -1.0;
        });
        assert!(message.contains("features.3.conv.0.1.running_var") && message.contains("below 0"), "{message}");
    }

    /// torchvision's network in PyTorch 2.15, its last strides replaced by dilations, gives these numbers for the same
    /// weights and the same pixels.
    #[test]
    fn the_real_network_sees_what_pytorch_says() {
        let Some(weights) = shared("weights/mobilenet_v2.safetensors") else { return };
        let network = super::super::open(&weights, &Device::flex()).unwrap();
        assert_eq!((network.dim(), network.name()), (1280, "mobilenet_v2"));
        let map = network.encode_map(&[picture()]).unwrap().pop().unwrap();
        let near = |found: f32, expected: f32| assert!((found - expected).abs() < 2e-4, "{found}, expected {expected}");
        for (found, expected) in map.global.iter().zip([0.456_201, 0.253_406, 0.649_765, 0.122_787, 0.019_428]) {
            near(*found, expected);
        }
        for (cell, channel, expected) in [(0, 31, 1.036_711), (69, 1054, 1.372_628), (144, 1172, 2.607_044)] {
            near(map.patches[cell * 1280 + channel], expected);
        }
        near(map.patches.iter().sum::<f32>() / map.patches.len() as f32, 0.422_460);
    }

    /// With 7 by 7 cells, as it was trained, and its own head: a sea lion, 0.957 by PyTorch.
    #[test]
    fn the_real_network_names_a_sea_lion() {
        let (Some(path), Some(labels), Some(photos)) = (
            shared("weights/mobilenet_v2.safetensors"),
            shared("weights/imagenet_labels.txt"),
            shared("data/neuraltalk_example"),
        ) else {
            return;
        };
        let bytes = std::fs::read(&path).unwrap();
        let network = MobileNetV2::of_file(&path, &bytes, 32, &Device::flex()).unwrap();
        let map = network.encode_map(&[Photo::open(photos.join("seal.jpg")).unwrap()]).unwrap().pop().unwrap();
        assert_eq!((map.grid_h, map.grid_w), (7, 7));
        let tensors = weights::tensors(&path, &bytes).unwrap();
        let mut reader = Reader::new(&path, &tensors, "classifier.1.");
        let (weight, bias) = (reader.take("weight", &[1000, 1280]).unwrap(), reader.take("bias", &[1000]).unwrap());
        let dot = |row: &[f32]| row.iter().zip(&map.global).map(|(w, x)| w * x).sum::<f32>();
        let logits: Vec<f32> = weight.chunks_exact(1280).zip(&bias).map(|(row, b)| dot(row) + b).collect();
        let best = (0..1000).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        let probability = 1.0 / logits.iter().map(|logit| (logit - logits[best]).exp()).sum::<f32>();
        let labels = std::fs::read_to_string(labels).unwrap();
        assert!(labels.lines().nth(best).unwrap().contains("sea lion"));
        assert!((probability - 0.957).abs() < 0.03, "{probability}");
    }
}
