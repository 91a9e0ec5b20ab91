//! Any other network, as an ONNX file, run by tract: no shared library, nothing to install.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Backbone, FeatureMap, file_stem, mean_of, write_planes};
use crate::onnx::OnnxNetwork;
use crate::{Error, Filter, Photo, Result};

/// How pictures are made into the network's input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnnxOptions {
    /// Side of the square input in pixels, for a network that leaves it open.
    pub input: Option<usize>,
    /// Subtracted from the colours in `0..=1`; red, green, blue. ImageNet's unless given.
    pub mean: [f32; 3],
    /// What the difference is divided by.
    pub std: [f32; 3],
    /// Tokens before the patches in an output of `[1, tokens, dim]`; the first is the global vector. Unless given, what
    /// is left over the largest square.
    pub prefix_tokens: Option<usize>,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self { input: None, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], prefix_tokens: None }
    }
}

/// More tokens than these before the patches (class, distillation, eight registers) are not guessed.
const MOST_PREFIX_TOKENS: usize = 10;

/// What the shape of the first output says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Output {
    /// `[1, dim]`: a grid of one cell.
    Vector { dim: usize },
    /// `[1, dim, grid_h, grid_w]`, a convolutional network's last map.
    Map { dim: usize, grid_h: usize, grid_w: usize },
    /// `[1, prefix + grid * grid, dim]`.
    Tokens { dim: usize, prefix: usize, grid: usize },
}

impl Output {
    fn dim(self) -> usize {
        match self {
            Self::Vector { dim } | Self::Map { dim, .. } | Self::Tokens { dim, .. } => dim,
        }
    }
}

/// A [`Backbone`] from an ONNX file: one input `[1, 3, height, width]`, of which the first output is a vector
/// `[1, dim]`, a map `[1, dim, rows, columns]`, or tokens `[1, tokens, dim]`.
#[derive(Debug)]
pub struct OnnxBackbone {
    name: String,
    options: OnnxOptions,
    height: usize,
    width: usize,
    output: Output,
    network: OnnxNetwork,
}

impl OnnxBackbone {
    /// Loads and optimises the network.
    ///
    /// Fails where the file is absent or not ONNX, an operator is unknown, the input is not `[1, 3, height, width]` of
    /// floats, its size is open and not given, or the output is of none of the shapes above.
    pub fn load(path: &Path, options: &OnnxOptions) -> Result<Self> {
        if options.std.iter().any(|s| !s.is_finite() || *s <= 0.0) {
            return Err(Error::setting(format!("std = {:?} must be three positive numbers", options.std)));
        }
        let network = OnnxNetwork::open(path)?;
        let [height, width] = input_sides(&network, options)?;
        let output = output_of(&network, [height, width], options)?;
        Ok(Self { name: file_stem(path), options: options.clone(), height, width, output, network })
    }

    /// One photo as the network's input `[1, 3, height, width]`.
    fn input(&self, photo: &Photo) -> Vec<f32> {
        let mut values = Vec::with_capacity(3 * self.width * self.height);
        let resized = photo.resize(self.width as u32, self.height as u32, Filter::Bicubic);
        write_planes(&resized, self.options.mean, self.options.std, &mut values);
        values
    }

    fn encode(&self, photo: &Photo) -> Result<FeatureMap> {
        let outputs = self.network.run(&self.input(photo), &[1, 3, self.height, self.width])?;
        let values = outputs.into_iter().next().expect("a network has an output").values;
        let dim = self.output.dim();
        Ok(match self.output {
            Output::Vector { .. } => FeatureMap { grid_h: 1, grid_w: 1, dim, patches: values.clone(), global: values },
            Output::Map { grid_h, grid_w, .. } => FeatureMap::of_planes(grid_h, grid_w, &values),
            Output::Tokens { prefix, grid, .. } => {
                let patches = values[prefix * dim..].to_vec();
                let global = if prefix == 0 { mean_of(&patches, dim) } else { values[..dim].to_vec() };
                FeatureMap { grid_h: grid, grid_w: grid, dim, patches, global }
            }
        })
    }
}

impl Backbone for OnnxBackbone {
    fn name(&self) -> &str {
        &self.name
    }

    fn checksum(&self) -> &str {
        self.network.checksum()
    }

    fn dim(&self) -> usize {
        self.output.dim()
    }

    fn settings(&self) -> Vec<(String, String)> {
        let OnnxOptions { mean, std, .. } = &self.options;
        let Self { height, width, output, .. } = self;
        vec![("onnx".to_owned(), format!("input {height} × {width}, mean {mean:?}, std {std:?}, {output:?}"))]
    }

    fn encode_map(&self, photos: &[Photo]) -> Result<Vec<FeatureMap>> {
        photos.iter().map(|photo| self.encode(photo)).collect()
    }
}

/// Height and width of the input, from the network or else from the setting.
fn input_sides(network: &OnnxNetwork, options: &OnnxOptions) -> Result<[usize; 2]> {
    let path = network.path();
    let shape = network.input_shape()?;
    let wrong = || {
        let message = format!("its input is {}, expected [1, 3, height, width]: colours first", shown(&shape));
        Error::onnx(path, message)
    };
    let [batch, channels, height, width] = shape[..] else {
        // A network may leave even the number of its axes open.
        return match (shape.is_empty(), options.input) {
            (true, Some(side)) if (1..=4096).contains(&side) => Ok([side, side]),
            _ => Err(wrong()),
        };
    };
    if batch.is_some_and(|batch| batch != 1) || channels.is_some_and(|channels| channels != 3) {
        return Err(wrong());
    }
    let side = |found: Option<usize>| match (found, options.input) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(given)) if found == given => Ok(found),
        (Some(found), Some(given)) => {
            Err(Error::setting(format!("input = {given}, but {} takes {found} pixels a side", path.display())))
        }
        (None, Some(given)) if (1..=4096).contains(&given) => Ok(given),
        (None, Some(given)) => Err(Error::setting(format!("input = {given} must lie in 1..=4096"))),
        (None, None) => {
            Err(Error::onnx(path, "it leaves the size of its input open; give it by the setting `input` (224, say)"))
        }
    };
    Ok([side(height)?, side(width)?])
}

fn output_of(network: &OnnxNetwork, [height, width]: [usize; 2], options: &OnnxOptions) -> Result<Output> {
    let found = network.output_shape(&[1, 3, height, width])?;
    let wrong = |why: &str| {
        let expected = "[1, dim], [1, dim, rows, columns] or [1, tokens, dim]";
        Error::onnx(network.path(), format!("its first output is {}, expected {expected}{why}", shown(&found)))
    };
    let known: Option<Vec<usize>> = found.iter().map(|size| size.filter(|&size| size > 0)).collect();
    let Some(shape) = known.filter(|shape| shape.first() == Some(&1)) else {
        return Err(wrong(" with a batch of one and all sizes known"));
    };
    match shape[1..] {
        [dim] => Ok(Output::Vector { dim }),
        [dim, grid_h, grid_w] => Ok(Output::Map { dim, grid_h, grid_w }),
        [tokens, dim] => {
            let largest = tokens.isqrt();
            let prefix = options.prefix_tokens.unwrap_or(tokens - largest * largest);
            let grid = tokens.saturating_sub(prefix).isqrt();
            let guessed_too_far = options.prefix_tokens.is_none() && prefix > MOST_PREFIX_TOKENS;
            if grid == 0 || grid * grid + prefix != tokens || guessed_too_far {
                return Err(wrong(&format!(
                    "; {tokens} tokens less {prefix} before the patches are no square grid; prefix_tokens may say how \
                                      many stand before"
                )));
            }
            Ok(Output::Tokens { dim, prefix, grid })
        }
        _ => Err(wrong("")),
    }
}

/// A shape in words, `?` for what is open.
fn shown(shape: &[Option<usize>]) -> String {
    let sizes: Vec<String> = shape.iter().map(|size| size.map_or("?".to_owned(), |size| size.to_string())).collect();
    format!("[{}]", sizes.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a protobuf message that holds bytes.
    fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
        [varint(field << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }

    fn number(field: u64, value: u64) -> Vec<u8> {
        [varint(field << 3), varint(value)].concat()
    }

    fn varint(mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        out
    }

    /// `ValueInfoProto` of floats; a zero stands for an open dimension.
    fn value_info(name: &str, shape: &[u64]) -> Vec<u8> {
        let dims: Vec<u8> =
            shape.iter().flat_map(|&d| bytes(1, &if d == 0 { bytes(2, b"open") } else { number(1, d) })).collect();
        let tensor = [number(1, 1), bytes(2, &dims)].concat();
        [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
    }

    fn initializer(name: &str, shape: &[u64], data_type: u64, raw: &[u8]) -> Vec<u8> {
        let dims: Vec<u8> = shape.iter().flat_map(|&d| number(1, d)).collect();
        [dims, number(2, data_type), bytes(8, name.as_bytes()), bytes(9, raw)].concat()
    }

    fn floats(name: &str, shape: &[u64], values: &[f32]) -> Vec<u8> {
        initializer(name, shape, 1, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    fn node(op: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
        let inputs: Vec<u8> = inputs.iter().flat_map(|i| bytes(1, i.as_bytes())).collect();
        let attributes: Vec<u8> = attributes.iter().flat_map(|a| bytes(5, a)).collect();
        [inputs, bytes(2, output.as_bytes()), bytes(3, output.as_bytes()), bytes(4, op.as_bytes()), attributes].concat()
    }

    fn ints(name: &str, values: &[u64]) -> Vec<u8> {
        let values: Vec<u8> = values.iter().flat_map(|&v| number(8, v)).collect();
        [bytes(1, name.as_bytes()), values, number(20, 7)].concat()
    }

    fn int(name: &str, value: u64) -> Vec<u8> {
        [bytes(1, name.as_bytes()), number(3, value), number(20, 2)].concat()
    }

    /// A `ModelProto` of operator set 13 with the input `x` and the output `y`.
    fn model(nodes: &[Vec<u8>], initializers: &[Vec<u8>], input: &[u64], output: &[u64]) -> Vec<u8> {
        let graph = [
            nodes.iter().flat_map(|n| bytes(1, n)).collect::<Vec<u8>>(),
            bytes(2, b"tiny"),
            initializers.iter().flat_map(|i| bytes(5, i)).collect(),
            bytes(11, &value_info("x", input)),
            bytes(12, &value_info("y", output)),
        ]
        .concat();
        let opset = [bytes(1, b""), number(2, 13)].concat();
        [number(1, 7), bytes(7, &graph), bytes(8, &opset)].concat()
    }

    /// Floats that lie in a file beside the network.
    fn outside(name: &str, shape: &[u64], file: &str) -> Vec<u8> {
        let place = [bytes(1, b"location"), bytes(2, file.as_bytes())].concat();
        [initializer(name, shape, 1, &[]), bytes(13, &place), number(14, 1)].concat()
    }

    #[test]
    fn weights_beside_a_network_are_in_its_checksum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.onnx");
        let nodes = [node("Add", &["x", "bias"], "y", &[])];
        std::fs::write(&path, model(&nodes, &[outside("bias", &[2], "tiny.data")], &[1, 2], &[1, 2])).unwrap();
        let missing = OnnxNetwork::open(&path).unwrap_err().to_string();
        assert!(missing.contains("tiny.data"), "{missing}");
        let with = |bias: [f32; 2]| {
            std::fs::write(folder.path().join("tiny.data"), bias.map(f32::to_le_bytes).concat()).unwrap();
            let network = OnnxNetwork::open(&path).unwrap();
            let output = network.run(&[1.0, 2.0], &[1, 2]).unwrap().swap_remove(0);
            (network.checksum().to_owned(), output.values)
        };
        let (first, second) = (with([1.0, 0.0]), with([0.0, 0.5]));
        assert_eq!((&first.1, &second.1), (&vec![2.0, 2.0], &vec![1.0, 2.5]));
        assert_ne!(first.0, second.0);
        assert_eq!(with([1.0, 0.0]).0, first.0);
    }

    fn load(content: &[u8], options: &OnnxOptions) -> Result<OnnxBackbone> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.onnx");
        std::fs::write(&path, content).unwrap();
        OnnxBackbone::load(&path, options)
    }

    /// The mean of each colour over the four quarters of an 8 × 8 picture: `[1, 3, 2, 2]`.
    fn quarter_means(output: &str) -> (Vec<u8>, Vec<u8>) {
        let kernel: Vec<f32> = (0..3 * 3 * 16).map(|i| if i / 48 == i / 16 % 3 { 1.0 / 16.0 } else { 0.0 }).collect();
        let attributes = [ints("kernel_shape", &[4, 4]), ints("strides", &[4, 4])];
        (node("Conv", &["x", "w"], output, &attributes), floats("w", &[3, 3, 4, 4], &kernel))
    }

    /// Four quarters of one colour each.
    fn quarters() -> Photo {
        let colours = [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]];
        let pixels = (0..64).flat_map(|i| colours[(i / 32) * 2 + (i % 8) / 4]).collect();
        Photo::from_rgb(8, 8, pixels)
    }

    const QUARTERS: [f32; 12] = [1., 0., 0., 0., 1., 0., 0., 0., 1., 1., 1., 1.];

    fn plain() -> OnnxOptions {
        OnnxOptions { mean: [0.0; 3], std: [1.0; 3], ..OnnxOptions::default() }
    }

    #[test]
    fn a_map_a_vector_and_tokens() {
        let (conv, kernel) = quarter_means("y");
        let backbone =
            load(&model(&[conv], std::slice::from_ref(&kernel), &[1, 3, 8, 8], &[1, 3, 2, 2]), &plain()).unwrap();
        let map = backbone.encode_map(&[quarters(), quarters()]).unwrap().remove(1);
        assert_eq!((map.grid_h, map.grid_w, map.dim, backbone.dim()), (2, 2, 3, 3));
        let close = |a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?}, expected {b:?}");
        };
        close(&map.patches, &QUARTERS);
        close(&map.global, &[0.5; 3]);
        // Mean and deviation are applied in this order.
        let options = OnnxOptions { mean: [0.5; 3], std: [0.25, 0.5, 1.0], ..OnnxOptions::default() };
        let (conv, kernel) = quarter_means("y");
        let backbone = load(&model(&[conv], &[kernel], &[1, 3, 8, 8], &[1, 3, 2, 2]), &options).unwrap();
        close(&backbone.encode_map(&[quarters()]).unwrap()[0].patches[..3], &[2.0, -1.0, -0.5]);

        let pool = node("GlobalAveragePool", &["x"], "p", &[]);
        let flat = node("Flatten", &["p"], "y", &[int("axis", 1)]);
        let backbone = load(&model(&[pool, flat], &[], &[1, 3, 8, 8], &[1, 3]), &plain()).unwrap();
        let map = backbone.encode_map(&[quarters()]).unwrap().remove(0);
        assert_eq!((map.grid_h, map.grid_w), (1, 1));
        close(&map.global, &[0.5; 3]);
        close(&map.patches, &[0.5; 3]);

        let (conv, kernel) = quarter_means("c");
        let shape: Vec<u8> = [1i64, 3, 4].iter().flat_map(|v| v.to_le_bytes()).collect();
        let nodes = [
            conv,
            node("Reshape", &["c", "shape"], "r", &[]),
            node("Transpose", &["r"], "t", &[ints("perm", &[0, 2, 1])]),
            node("Concat", &["class", "t"], "y", &[int("axis", 1)]),
        ];
        let class = floats("class", &[1, 1, 3], &[7.0, 8.0, 9.0]);
        let content = model(&nodes, &[kernel, initializer("shape", &[3], 7, &shape), class], &[1, 3, 8, 8], &[1, 5, 3]);
        let map = load(&content, &plain()).unwrap().encode_map(&[quarters()]).unwrap().remove(0);
        assert_eq!((map.grid_h, map.grid_w), (2, 2));
        close(&map.global, &[7.0, 8.0, 9.0]);
        close(&map.patches, &QUARTERS);
        let message = load(&content, &OnnxOptions { prefix_tokens: Some(2), ..plain() }).unwrap_err().to_string();
        assert!(message.contains("[1, 5, 3]") && message.contains("no square grid"), "{message}");
    }

    #[test]
    fn an_open_size_needs_the_setting() {
        let (conv, kernel) = quarter_means("y");
        let content = model(&[conv], &[kernel], &[1, 3, 0, 0], &[1, 3, 0, 0]);
        let message = load(&content, &plain()).unwrap_err().to_string();
        assert!(message.contains("leaves the size of its input open") && message.contains("`input`"), "{message}");
        let backbone = load(&content, &OnnxOptions { input: Some(16), ..plain() }).unwrap();
        let map = backbone.encode_map(&[quarters()]).unwrap().remove(0);
        assert_eq!((map.grid_h, map.grid_w, map.patches.len()), (4, 4, 48));
    }

    #[test]
    fn broken_networks_are_one_clear_line_each() {
        let check = |content: &[u8], options: &OnnxOptions, parts: &[&str]| {
            let message = load(content, options).unwrap_err().to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{message} lacks one of {parts:?}");
            assert_eq!(message.lines().count(), 1, "{message}");
        };
        check(b"", &plain(), &["tiny.onnx", "empty"]);
        check(b"this is no network", &plain(), &["tiny.onnx", "not an ONNX network"]);
        let (conv, kernel) = quarter_means("y");
        let whole = model(std::slice::from_ref(&conv), std::slice::from_ref(&kernel), &[1, 3, 8, 8], &[1, 3, 2, 2]);
        check(&whole[..whole.len() / 2], &plain(), &["tiny.onnx"]);
        check(&whole, &OnnxOptions { input: Some(9), ..plain() }, &["input = 9", "8 pixels"]);
        check(&whole, &OnnxOptions { std: [1.0, 0.0, 1.0], ..plain() }, &["std"]);
        let grey = model(&[conv], &[kernel], &[1, 1, 8, 8], &[1, 3, 2, 2]);
        check(&grey, &plain(), &["[1, 1, 8, 8]", "expected [1, 3, height, width]"]);
        let unknown = model(&[node("Nonsense", &["x"], "y", &[])], &[], &[1, 3, 8, 8], &[1, 3]);
        check(&unknown, &plain(), &["Nonsense"]);
        let sum = node("ReduceSum", &["x"], "y", &[int("keepdims", 0)]);
        check(&model(&[sum], &[], &[1, 3, 8, 8], &[]), &plain(), &["first output"]);
        assert!(matches!(OnnxBackbone::load(Path::new("/absent.onnx"), &plain()), Err(Error::Io { .. })));
    }
}
