//! Plots as SVG, and their PNG. A small layer of our own: points with intervals on a shared scale, and lines,
//! directly labelled; a general plotting library draws these with legends and fixed colours, and cannot
//! follow the reader's dark mode.

use std::fmt::Write;

use crate::failure::Failure;
use crate::report::retrieval::Estimate;

/// Okabe and Ito's colour-blind-safe colours.
pub const COLOURS: [&str; 6] = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];

/// Rows of points with intervals, one group of rows a test.
pub fn dots(title: &str, groups: &[(String, f64, Vec<(String, Estimate)>)]) -> String {
    let rows: usize = groups.iter().map(|g| g.2.len() + 1).sum();
    let (left, width, row_height) = (230.0, 760.0, 21.0);
    let height = 56.0 + rows as f64 * row_height;
    let top = groups.iter().flat_map(|g| &g.2).map(|(_, e)| e.high).fold(0.05, f64::max);
    let x = |v: f64| left + v / top * (width - left - 70.0);
    let mut svg = head(title, width, height);
    let mut y = 44.0;
    for (name, chance, points) in groups {
        let _ = write!(svg, r#"<text x="8" y="{:.1}" class="t">{}</text>"#, y + 4.0, escape(name));
        let bottom = y + (points.len() as f64 + 0.3) * row_height;
        let _ = write!(
            svg,
            r#"<line x1="{c:.1}" x2="{c:.1}" y1="{:.1}" y2="{bottom:.1}" class="c"/><text x="{c:.1}" y="{:.1}" class="s" text-anchor="middle">chance</text>"#,
            y + 6.0,
            y + 3.0,
            c = x(*chance)
        );
        y += row_height;
        for (i, (label, e)) in points.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end" class="l">{}</text><line x1="{:.1}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}" stroke="{colour}" stroke-width="2"/><circle cx="{:.1}" cy="{y:.1}" r="4.5" fill="{colour}"/><text x="{:.1}" y="{:.1}" class="l">{:.3}</text>"#,
                left - 12.0,
                y + 4.0,
                escape(label),
                x(e.low),
                x(e.high),
                x(e.value),
                x(e.high) + 7.0,
                y + 4.0,
                e.value
            );
            y += row_height;
        }
    }
    svg + "</svg>"
}

/// One series of a line plot: its name and its points.
pub type Series = (String, Vec<(f64, f64)>);

/// Lines, each labelled at its end.
pub fn lines(title: &str, x_name: &str, y_name: &str, series: &[Series]) -> String {
    let (width, height, left, bottom) = (760.0, 300.0, 56.0, 40.0);
    let all = || series.iter().flat_map(|s| &s.1);
    let x_top = all().map(|p| p.0).fold(1e-9, f64::max);
    let y_top = all().map(|p| p.1).fold(1e-9, f64::max);
    let x = |v: f64| left + v / x_top * (width - left - 170.0);
    let y = |v: f64| height - bottom - v / y_top * (height - bottom - 50.0);
    let mut svg = head(title, width, height);
    for i in 0..=4 {
        let v = y_top * f64::from(i) / 4.0;
        let _ = write!(
            svg,
            r#"<line x1="{left}" x2="{:.1}" y1="{yy:.1}" y2="{yy:.1}" class="g"/><text x="{:.1}" y="{:.1}" text-anchor="end" class="s">{v:.2}</text>"#,
            width - 170.0,
            left - 6.0,
            y(v) + 4.0,
            yy = y(v)
        );
    }
    let _ = write!(
        svg,
        r#"<text x="{:.1}" y="{:.1}" class="s" text-anchor="middle">{} (to {x_top:.0})</text><text x="{left}" y="40" class="s">{}</text>"#,
        (left + width - 170.0) / 2.0,
        height - 12.0,
        escape(x_name),
        escape(y_name)
    );
    for (i, (name, points)) in series.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let path: Vec<String> = points.iter().map(|p| format!("{:.1},{:.1}", x(p.0), y(p.1))).collect();
        let _ =
            write!(svg, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="1.6"/>"#, path.join(" "));
        if let Some(last) = points.last() {
            let at = y(last.1) + 4.0 + if i % 2 == 1 { 9.0 } else { -3.0 };
            let _ = write!(
                svg,
                r#"<text x="{:.1}" y="{at:.1}" fill="{colour}" class="e">{}</text>"#,
                x(last.0) + 6.0,
                escape(name)
            );
        }
    }
    svg + "</svg>"
}

/// Points by two measures, each labelled.
pub fn scatter(title: &str, x_name: &str, y_name: &str, points: &[(String, f64, f64)]) -> String {
    let (width, height, left, bottom) = (760.0, 280.0, 56.0, 44.0);
    let x_top = points.iter().map(|p| p.1).fold(1e-9, f64::max) * 1.1;
    let y_top = points.iter().map(|p| p.2).fold(1e-9, f64::max) * 1.15;
    let x = |v: f64| left + v / x_top * (width - left - 150.0);
    let y = |v: f64| height - bottom - v / y_top * (height - bottom - 44.0);
    let mut svg = head(title, width, height);
    let _ = write!(
        svg,
        r#"<line x1="{left}" x2="{:.1}" y1="{b:.1}" y2="{b:.1}" class="g"/><line x1="{left}" x2="{left}" y1="44" y2="{b:.1}" class="g"/><text x="{left}" y="{:.1}" class="s">0 to {x_top:.0} {}</text><text x="{left}" y="40" class="s">{} (0 to {y_top:.2})</text>"#,
        width - 150.0,
        height - 14.0,
        escape(x_name),
        escape(y_name),
        b = height - bottom
    );
    for (i, (name, px, py)) in points.iter().enumerate() {
        let _ = write!(
            svg,
            r#"<circle cx="{:.1}" cy="{:.1}" r="6" fill="{}"/><text x="{:.1}" y="{:.1}" class="l">{}</text>"#,
            x(*px),
            y(*py),
            COLOURS[i % COLOURS.len()],
            x(*px) + 10.0,
            y(*py) + if i % 2 == 0 { -6.0 } else { 14.0 },
            escape(name)
        );
    }
    svg + "</svg>"
}

/// A matrix of similarities as shades.
pub fn heat(title: &str, names: &[String], values: &[f32]) -> String {
    let n = names.len();
    let (cell, left, top) = (16.0, 190.0, 44.0);
    let (width, height) = (left + cell * n as f64 + 20.0, top + cell * n as f64 + 16.0);
    let (low, high) = values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(*v), h.max(*v)));
    let mut svg = head(title, width.max(420.0), height);
    for (i, name) in names.iter().enumerate() {
        let y = top + cell * i as f64;
        let _ = write!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end" class="s">{}</text>"#,
            left - 6.0,
            y + 12.0,
            escape(name)
        );
        for j in 0..n {
            let share = (values[i * n + j] - low) / (high - low).max(1e-9);
            let _ = write!(
                svg,
                r##"<rect x="{:.1}" y="{y:.1}" width="{cell}" height="{cell}" fill="#0072B2" fill-opacity="{share:.3}"/>"##,
                left + cell * j as f64
            );
        }
    }
    svg + "</svg>"
}

fn head(title: &str, width: f64, height: f64) -> String {
    format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" role="img" aria-label="{t}"><style>text{{font-family:system-ui,Ubuntu-Light,sans-serif;fill:#444}}.t{{font-size:13px;font-weight:600}}.l{{font-size:12px}}.s{{font-size:11px;fill:#888}}.e{{font-size:11px}}.c{{stroke:#999;stroke-dasharray:3 3}}.g{{stroke:#ccc;stroke-width:.7}}</style><text x="8" y="20" style="font-size:15px;font-weight:600">{t}</text>"#,
        t = escape(title)
    )
}

/// For XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The PNG of a plot, on white, twice its size; its letters come with the program.
pub fn png(svg: &str) -> Result<Vec<u8>, Failure> {
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
    canvas.encode_png().map_err(|e| failed(&e))
}
