//! Pictures to pixels: decoding, laying over a colour, squaring, resizing, and views for training.

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, RgbImage, RgbaImage};
use serde_json::{Value, json};

use crate::backend::pixels;
use crate::backend::rng::Rng;
use crate::failure::Failure;

/// How a picture becomes a model's input.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Preprocessing {
    /// Height and width in pixels.
    pub size: usize,
    /// Taken from each value of 0 to 255.
    pub mean: Colours,
    /// What is left is divided by this.
    pub std: Colours,
    /// How a picture that is not square, or of another size, is brought to it.
    #[serde(default, skip_serializing_if = "Fit::is_pad")]
    pub fit: Fit,
}

/// A number for all colours, or one for each of red, green and blue.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub enum Colours {
    /// For all.
    All(f32),
    /// For each.
    Each([f32; 3]),
}

/// How a picture gets its size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// The whole picture, on a transparent square; linear.
    #[default]
    Pad,
    /// The middle of it, after its shorter edge was brought to so many pixels; cubic.
    Crop {
        /// Pixels of the shorter edge.
        edge: usize,
    },
}

impl Fit {
    fn is_pad(&self) -> bool {
        *self == Fit::Pad
    }

    fn filter(self) -> FilterType {
        match self {
            Fit::Pad => FilterType::Bilinear,
            Fit::Crop { .. } => FilterType::CatmullRom,
        }
    }
}

impl Colours {
    /// Of red, green and blue.
    pub fn each(self) -> [f32; 3] {
        match self {
            Colours::All(value) => [value; 3],
            Colours::Each(values) => values,
        }
    }
}

impl Preprocessing {
    /// As OpenAI's CLIP models see: the mean and deviation of their training's pictures, of values of 0 to 1.
    pub fn clip(size: usize) -> Self {
        let [mean, std] = [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]];
        let byte = |values: [f64; 3]| Colours::Each(values.map(|v| (v * 255.0) as f32));
        Self { size, mean: byte(mean), std: byte(std), fit: Fit::Crop { edge: size } }
    }

    /// As a `preprocessor_config.json` of Hugging Face's `CLIPImageProcessor` says.
    pub fn from_hub(text: &str) -> Result<Self, Failure> {
        let config: Value = serde_json::from_str(text).map_err(|e| Failure::target(format!("not JSON: {e}")))?;
        let refuse = |what: String| {
            Err(Failure::target(what)
                .help("effai prepares pictures as CLIPImageProcessor does: shorter edge, crop, scale, norm"))
        };
        for step in ["do_resize", "do_center_crop", "do_rescale", "do_normalize"] {
            if config[step] == false {
                return refuse(format!("`{step}` is off, which is not supported"));
            }
        }
        // PIL's numbers; CLIPImageProcessor's own is 3.
        if config["resample"].as_u64().is_some_and(|filter| filter != 3) {
            return refuse(format!("`resample` is {}, and only 3, bicubic, is supported", config["resample"]));
        }
        let edge = |value: &Value, name: &str| -> Option<usize> {
            value.as_u64().or_else(|| value[name].as_u64()).map(|edge| edge as usize)
        };
        let crop = edge(&config["crop_size"], "height").unwrap_or(224);
        if edge(&config["crop_size"], "width").is_some_and(|width| width != crop) {
            return refuse(format!("`crop_size` is {}, which is not square", config["crop_size"]));
        }
        let shorter = match &config["size"] {
            Value::Null => 224,
            size => match edge(size, "shortest_edge") {
                Some(edge) if edge >= crop => edge,
                _ => return refuse(format!("`size` is {size}, and a shorter edge of {crop} or more is wanted")),
            },
        };
        let factor = config["rescale_factor"].as_f64().unwrap_or(1.0 / 255.0);
        let colours = |name: &str, usual: Colours| match &config[name] {
            Value::Null => Ok(usual),
            given => serde_json::from_value::<[f64; 3]>(given.clone())
                .map(|values| Colours::Each(values.map(|v| (v / factor) as f32)))
                .map_err(|e| Failure::target(format!("`{name}`: {e}"))),
        };
        let usual = Self::clip(crop);
        let (mean, std) = (colours("image_mean", usual.mean)?, colours("image_std", usual.std)?);
        Ok(Self { size: crop, mean, std, fit: Fit::Crop { edge: shorter } })
    }

    /// The same as `preprocessor_config.json`, for Hugging Face's library; of a model whose pictures are cropped.
    pub fn to_hub(self) -> Value {
        let edge = match self.fit {
            Fit::Crop { edge } => edge,
            Fit::Pad => self.size,
        };
        let unit = |colours: Colours| colours.each().map(|v| f64::from(v) / 255.0);
        json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": true, "do_resize": true, "do_center_crop": true, "do_rescale": true, "do_normalize": true,
            "size": { "shortest_edge": edge }, "crop_size": { "height": self.size, "width": self.size },
            "resample": 3, "rescale_factor": 1.0 / 255.0, "image_mean": unit(self.mean), "image_std": unit(self.std),
        })
    }
}

/// Decodes a PNG, JPEG, WebP, GIF or BMP.
pub fn decode(bytes: &[u8], name: &str) -> Result<RgbaImage, Failure> {
    image::load_from_memory(bytes).map(|p| p.to_rgba8()).map_err(|e| {
        Failure::target(format!("the picture `{name}` cannot be decoded: {e}"))
            .help("leave the record out with `skip`, or mend the file")
    })
}

/// View `number` of a picture as size x size x 3 values, row by row.
///
/// View 0 is the plain one. The others are drawn from `rng`'s stream for the picture: flipped or not, scaled
/// to 70 to 100 %, shifted, on white, with saturation, brightness and tint changed.
pub fn view(
    picture: &RgbaImage,
    number: usize,
    prep: &Preprocessing,
    seed: u64,
    id: &str,
) -> Result<Vec<f32>, Failure> {
    if number == 0 {
        return Ok(normalise(&fit(picture, prep.size, prep)?, prep));
    }
    if number == 1 {
        let mut values = view(picture, 0, prep, seed, id)?;
        pixels::flip(&mut values, prep.size);
        return Ok(values);
    }
    let mut rng = Rng::new(seed, &format!("view {number} {id}"));
    let scale = rng.between(0.7, 1.0);
    let size = ((prep.size as f32 * scale).round() as usize).max(1);
    let room = prep.size - size;
    let (dx, dy) = (rng.below(room + 1), rng.below(room + 1));
    let mut small = fit(picture, size, prep)?;
    let saturation = rng.between(0.3, 1.5);
    let gain = rng.between(0.6, 1.3);
    let gains = [0; 3].map(|_| gain * rng.between(0.85, 1.15));
    pixels::recolour(&mut small, saturation, gains);
    let mut values = normalise(&pixels::on_white(&small, size, prep.size, [dx, dy]), prep);
    if rng.uniform() < 0.5 {
        pixels::flip(&mut values, prep.size);
    }
    Ok(values)
}

/// Pictures of bytes of red, green and blue and of this height and width, one after the other, as a model sees them.
///
/// # Errors
/// If they cannot be resized.
///
/// # Panics
/// If they are not whole pictures.
pub fn prepared(bytes: &[u8], [height, width]: [usize; 2], prep: &Preprocessing) -> Result<Vec<f32>, Failure> {
    let mut all = Vec::new();
    for picture in bytes.chunks(height * width * 3) {
        let rgb = RgbImage::from_raw(width as u32, height as u32, picture.to_vec()).expect("a whole picture");
        all.extend(view(&DynamicImage::from(rgb).into_rgba8(), 0, prep, 0, "")?);
    }
    Ok(all)
}

fn square(picture: &RgbaImage) -> RgbaImage {
    let (w, h) = picture.dimensions();
    if w == h {
        return picture.clone();
    }
    let side = w.max(h);
    let mut canvas = RgbaImage::from_pixel(side, side, image::Rgba([255, 255, 255, 0]));
    image::imageops::replace(&mut canvas, picture, i64::from((side - w) / 2), i64::from((side - h) / 2));
    canvas
}

/// A picture on white, brought to size x size x 3 values of 0 to 255.
fn fit(picture: &RgbaImage, size: usize, prep: &Preprocessing) -> Result<Vec<f32>, Failure> {
    match prep.fit {
        Fit::Pad => {
            let picture = square(picture);
            resize(pixels::over_white(&picture), picture.dimensions(), (size as u32, size as u32), prep.fit.filter())
        }
        Fit::Crop { edge } => {
            // The shorter edge of a view that is smaller than the model's pictures shrinks along.
            let edge = if size == prep.size { edge } else { (edge * size / prep.size).max(size) };
            let (w, h) = picture.dimensions();
            let [to_w, to_h] = with_shorter(edge, [w as usize, h as usize]);
            let to = (to_w as u32, to_h as u32);
            let values = resize(pixels::over_white(picture), (w, h), to, prep.fit.filter())?;
            let [left, top] = [to_w, to_h].map(|length| (length - size) / 2);
            let rows = values.chunks_exact(to_w * 3).skip(top).take(size);
            Ok(rows.map(|row| &row[left * 3..(left + size) * 3]).collect::<Vec<_>>().concat())
        }
    }
}

/// Width and height of a picture whose shorter edge is brought to so many pixels.
fn with_shorter(edge: usize, [w, h]: [usize; 2]) -> [usize; 2] {
    let longer = |long: usize, short: usize| edge * long / short.max(1);
    if w <= h { [edge, longer(h, w)] } else { [longer(w, h), edge] }
}

fn resize(rgb: Vec<u8>, from: (u32, u32), to: (u32, u32), filter: FilterType) -> Result<Vec<f32>, Failure> {
    Ok(pixels::floats(&filtered(rgb, from, to, PixelType::U8x3, filter)?))
}

/// The bytes of a picture in another size.
fn filtered(
    bytes: Vec<u8>,
    from: (u32, u32),
    to: (u32, u32),
    pixel: PixelType,
    filter: FilterType,
) -> Result<Vec<u8>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::target(format!("a picture cannot be resized: {e}"));
    let source = Image::from_vec_u8(from.0, from.1, bytes, pixel).map_err(|e| failed(&e))?;
    let mut target = Image::new(to.0, to.1, pixel);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    Ok(target.into_vec())
}

/// How one axis of pictures gets another length: `min(max(floor(weights . pixels + shift), 0), 255)`, for who has products of
/// matrices and no filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Pixels before.
    pub from: usize,
    /// Pixels after.
    pub to: usize,
    /// Of which pixels before each one after is made, `[to, from]`.
    pub weights: Vec<f32>,
    /// What is added to each one after, `[to]`: the white around the picture, and the half by which it is rounded.
    pub shift: Vec<f32>,
}

/// The library's weights for bytes are whole numbers of 16 bits over a power of two, of at most so many bits.
const POWER_MAX: i32 = 22;

impl Pass {
    /// Of an axis of `from` pixels, which lie behind `before` white ones of `whole`: those are brought to `to`, and of these
    /// `size` are left from `start` on.
    fn new(
        [from, before, whole]: [usize; 3],
        [to, start, size]: [usize; 3],
        filter: FilterType,
    ) -> Result<Self, Failure> {
        // What a filter makes of a picture whose rows have one pixel of 1 each are its weights.
        let mut ones = vec![0f32; whole * whole];
        ones.iter_mut().step_by(whole + 1).for_each(|one| *one = 1.0);
        let ones = ones.into_iter().flat_map(f32::to_ne_bytes).collect();
        let made = filtered(ones, (whole as u32, whole as u32), (to as u32, whole as u32), PixelType::F32, filter)?;
        let made: Vec<f32> = made.as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        // The largest power by which the largest weight is such a number: as the library rounds them.
        let largest = f64::from(made.iter().copied().fold(0.0, f32::max));
        let exceeds = |power: &i32| (largest * f64::from(power + 1).exp2()).round() >= f64::from(1 << 15);
        let steps = f64::from((0..POWER_MAX).find(exceeds).unwrap_or(POWER_MAX - 1)).exp2();
        let weight = |pixel: usize, of: usize| ((f64::from(made[pixel * to + of]) * steps).round() / steps) as f32;
        let mut pass =
            Self { from, to: size, weights: Vec::with_capacity(size * from), shift: Vec::with_capacity(size) };
        for of in start..start + size {
            pass.weights.extend((before..before + from).map(|pixel| weight(pixel, of)));
            let around = (0..before).chain(before + from..whole).map(|pixel| weight(pixel, of)).sum::<f32>();
            pass.shift.push(255.0 * around + 0.5);
        }
        Ok(pass)
    }
}

impl Preprocessing {
    /// How pictures of this height and width are brought to the model's size: along the height first, then along the width. The
    /// same pixels as effai's own come of it, but for what 32-bit floats round. None of what has that size.
    ///
    /// # Errors
    /// If the library refuses.
    pub fn passes(&self, [height, width]: [usize; 2]) -> Result<Option<[Pass; 2]>, Failure> {
        let (size, filter) = (self.size, self.fit.filter());
        let [to_w, to_h] = match self.fit {
            Fit::Pad => [size; 2],
            Fit::Crop { edge } => with_shorter(edge, [width, height]),
        };
        if [height, width] == [size; 2] && [to_w, to_h] == [size; 2] {
            return Ok(None);
        }
        let pass = |length: usize, to: usize| {
            let whole = if self.fit.is_pad() { height.max(width) } else { length };
            Pass::new([length, (whole - length) / 2, whole], [to, (to - size) / 2, size], filter)
        };
        Ok(Some([pass(height, to_h)?, pass(width, to_w)?]))
    }
}

fn normalise(values: &[f32], prep: &Preprocessing) -> Vec<f32> {
    pixels::normalise(values, prep.mean.each(), prep.std.each())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::rng::Rng;

    /// `passes` by hand: [h, w, 3] along the height, then along the width.
    fn passed(bytes: &[u8], [height, width]: &[Pass; 2]) -> Vec<f32> {
        let along = |pass: &Pass, to: usize, pixel: &dyn Fn(usize) -> f32| {
            let weights = &pass.weights[to * pass.from..][..pass.from];
            let sum = weights.iter().enumerate().map(|(from, weight)| weight * pixel(from)).sum::<f32>();
            (sum + pass.shift[to]).floor().clamp(0.0, 255.0)
        };
        let row = width.from * 3;
        let down: Vec<f32> =
            (0..height.to * row).map(|at| along(height, at / row, &|y| f32::from(bytes[y * row + at % row]))).collect();
        (0..height.to * width.to * 3)
            .map(|at| {
                let (y, x, colour) = (at / (width.to * 3), at / 3 % width.to, at % 3);
                along(width, x, &|from| down[y * row + from * 3 + colour])
            })
            .collect()
    }

    #[test]
    fn products_bring_pictures_to_the_size_as_filters_do() {
        let sizes = [[48, 64], [31, 20], [17, 90], [24, 24], [32, 32], [28, 28]];
        for fit in [Fit::Pad, Fit::Crop { edge: 24 }, Fit::Crop { edge: 28 }] {
            let prep = Preprocessing { size: 24, mean: Colours::All(0.0), std: Colours::All(1.0), fit };
            for [height, width] in sizes {
                let mut rng = Rng::new(7, &format!("{fit:?} {height} {width}"));
                // Black and white: cubic filters leave their bounds there.
                let bytes: Vec<u8> = (0..height * width * 3).map(|_| 255 * rng.below(2) as u8).collect();
                let rgba: Vec<u8> = bytes.chunks(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
                let picture = RgbaImage::from_raw(width as u32, height as u32, rgba).unwrap();
                let expected = view(&picture, 0, &prep, 0, "").unwrap();
                let Some(passes) = prep.passes([height, width]).unwrap() else {
                    assert_eq!(([height, width], fit == Fit::Crop { edge: 28 }), ([24, 24], false));
                    continue;
                };
                assert_eq!(passed(&bytes, &passes), expected, "{fit:?} {height} x {width}");
            }
        }
    }
}
