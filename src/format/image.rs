//! Pictures to pixels: decoding, laying over a colour, squaring, resizing, and views for training.

use fast_image_resize::images::Image;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::RgbaImage;

use crate::backend::rng::Rng;
use crate::failure::Failure;

/// How a picture becomes a model's input.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Preprocessing {
    /// Height and width in pixels.
    pub size: usize,
    /// Taken from each value of 0 to 255.
    pub mean: f32,
    /// What is left is divided by this.
    pub std: f32,
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
        let rgb = over_white(&square(picture));
        return Ok(normalise(&resize(&rgb, prep.size)?, prep));
    }
    if number == 1 {
        let mut values = view(picture, 0, prep, seed, id)?;
        flip(&mut values, prep.size);
        return Ok(values);
    }
    let mut rng = Rng::new(seed, &format!("view {number} {id}"));
    let scale = rng.between(0.7, 1.0);
    let size = ((prep.size as f32 * scale).round() as usize).max(1);
    let room = prep.size - size;
    let (dx, dy) = (rng.below(room + 1), rng.below(room + 1));
    let small = resize(&over_white(&square(picture)), size)?;
    let saturation = rng.between(0.3, 1.5);
    let gain = rng.between(0.6, 1.3);
    let gains = [0; 3].map(|_| gain * rng.between(0.85, 1.15));
    let mut canvas = vec![255.0f32; prep.size * prep.size * 3];
    for y in 0..size {
        for x in 0..size {
            let from = &small[(y * size + x) * 3..][..3];
            let grey = 0.299 * from[0] + 0.587 * from[1] + 0.114 * from[2];
            let to = &mut canvas[((y + dy) * prep.size + x + dx) * 3..][..3];
            for c in 0..3 {
                let value = grey + (from[c] - grey) * saturation;
                to[c] = (255.0 - (255.0 - value) * gains[c]).clamp(0.0, 255.0);
            }
        }
    }
    let mut values = normalise(&canvas, prep);
    if rng.uniform() < 0.5 {
        flip(&mut values, prep.size);
    }
    Ok(values)
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

fn over_white(picture: &RgbaImage) -> (Vec<u8>, usize) {
    let mut rgb = Vec::with_capacity(picture.len() / 4 * 3);
    for pixel in picture.pixels() {
        let alpha = u32::from(pixel[3]);
        for c in 0..3 {
            rgb.push(((u32::from(pixel[c]) * alpha + 255 * (255 - alpha) + 127) / 255) as u8);
        }
    }
    (rgb, picture.width() as usize)
}

fn resize((rgb, side): &(Vec<u8>, usize), size: usize) -> Result<Vec<f32>, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::target(format!("a picture cannot be resized: {e}"));
    let side = *side as u32;
    let source = Image::from_vec_u8(side, side, rgb.clone(), PixelType::U8x3).map_err(|e| failed(&e))?;
    let mut target = Image::new(size as u32, size as u32, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut target, &options).map_err(|e| failed(&e))?;
    Ok(target.buffer().iter().map(|v| f32::from(*v)).collect())
}

fn normalise(values: &[f32], prep: &Preprocessing) -> Vec<f32> {
    values.iter().map(|v| (v - prep.mean) / prep.std).collect()
}

fn flip(values: &mut [f32], size: usize) {
    for row in values.chunks_exact_mut(size * 3) {
        for x in 0..size / 2 {
            for c in 0..3 {
                row.swap(x * 3 + c, (size - 1 - x) * 3 + c);
            }
        }
    }
}
