//! Plots as SVG, and their PNG. A small layer of our own: points with intervals on a shared scale, lines in panels,
//! a matrix of shades, all directly labelled; a general plotting library draws these with legends and fixed
//! colours, and cannot follow the reader's dark mode.
//!
//! Every colour is a class. A file alone carries [`style`] and is right on white; the page carries it once and
//! has its own colours for dark mode after it. What stands for a value is a mark (`class="m"`) that says in its `title`
//! whose it is and how much; the page's script shows that at once, by pointer and by keyboard.

pub mod bars;
mod canvas;
pub mod dots;
pub mod front;
pub mod heat;
pub mod histograms;
mod labels;
pub mod multiples;
pub mod panels;
pub mod ranked;
pub mod roofline;
mod scale;
pub mod scatter;
pub mod strips;

use std::fmt::Write;

pub use canvas::{escape, swatch};

use crate::failure::Failure;

/// Okabe and Ito's colour-blind-safe colours but for yellow, which is lost on white.
pub const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/// The rules of the plots' classes, on white.
pub fn style() -> String {
    let mut css = String::from(
        ".fx text{font-family:system-ui,Ubuntu,sans-serif;font-size:12px;fill:#333}.fx .h{font-size:15px;\
         font-weight:600}.fx .t{font-size:13px;font-weight:600}.fx .s{font-size:11px;fill:#666}.fx .g{stroke:#e2e2e2}\
         .fx .a{stroke:#999}.fx .c{stroke:#777;stroke-dasharray:4 3}",
    );
    for (i, colour) in COLOURS.iter().enumerate() {
        let _ = write!(css, ".fx .k{i}{{stroke:{colour};fill:{colour}}}");
    }
    css + ".fx .n{fill:none}.fx .o{fill:#fff}.fx .z{stroke:none}.fx .d{fill:none;stroke:#333;stroke-width:1.5}\
           .fx .p{fill:#fff;stroke:#333}.fx .i{fill:#333;stroke:none}.fx .w{stroke-width:2}\
           .fx .r{stroke-width:.8;stroke-opacity:.4}.fx .v{stroke-dasharray:6 3}.fx .e{font-size:8px}.fx .u{pointer-events:none}"
}

/// The PNG of a plot, on white, twice its size; its letters come with the program.
pub fn png(svg: &str) -> Result<Vec<u8>, Failure> {
    use image::codecs::png::{CompressionType, FilterType, PngEncoder};
    use image::{ExtendedColorType, ImageEncoder};
    use resvg::{tiny_skia, usvg};
    let failed = |e: &dyn std::fmt::Display| Failure::target(format!("a plot cannot be drawn: {e}"));
    let mut options = usvg::Options { font_family: "Ubuntu".into(), ..Default::default() };
    options.fontdb_mut().load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = options.fontdb_mut().faces().next().and_then(|f| f.families.first().map(|f| f.0.clone()));
    if let Some(family) = family {
        options.fontdb_mut().set_sans_serif_family(family);
    }
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| failed(&e))?;
    let size = tree.size();
    let mut canvas = tiny_skia::Pixmap::new((size.width() * 2.0) as u32, (size.height() * 2.0) as u32)
        .ok_or_else(|| failed(&"it has no size"))?;
    canvas.fill(tiny_skia::Color::WHITE);
    resvg::render(&tree, tiny_skia::Transform::from_scale(2.0, 2.0), &mut canvas.as_mut());
    // Nothing is transparent, and most of a line is as the one above it: half the time of looking for the best filter.
    let mut pixels = Vec::with_capacity(canvas.data().len() / 4 * 3);
    canvas.data().chunks_exact(4).for_each(|pixel| pixels.extend_from_slice(&pixel[..3]));
    let mut png = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut png, CompressionType::Default, FilterType::Up);
    let (width, height) = (canvas.width(), canvas.height());
    encoder.write_image(&pixels, width, height, ExtendedColorType::Rgb8).map_err(|e| failed(&e))?;
    Ok(png)
}
