//! The plots of encoders.

use crate::report::encoders::words::speed_of;
use crate::report::figures::Figure;
use crate::report::numbers::Numbers;
use crate::report::quantization::figures::{Axes, fronts};

/// Size and speed against the distance.
pub fn all(numbers: &Numbers) -> Vec<Figure> {
    let (Some(encoded), Some(found)) = (numbers.encoded.first(), &numbers.quantization) else { return Vec::new() };
    let original = numbers.subjects.first().map_or("", |s| s.name.as_str());
    let levels = found.limits.iter().filter_map(|r| r.limit.cosine);
    let speed = speed_of(encoded);
    let axes = Axes {
        distance: "distance",
        y_name: &format!("1 \u{2212} cosine to the vectors of {original}, with 95 % intervals"),
        levels: levels.map(|cosine| (1.0 - cosine, format!("cosine {cosine}"))).collect(),
        speed: Some((speed.key, speed.name)),
    };
    fronts(numbers, found, &axes)
}
