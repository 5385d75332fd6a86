//! A plot of measured curves as a picture (SVG) that any browser shows: both axes logarithmic, a line for each curve.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The measured points of one line: what was varied, and what was measured.
#[derive(Debug)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 500.0;
/// Around the area of the lines, for what is written beside it.
const MARGIN: f64 = 70.0;
const COLOURS: [&str; 6] = ["#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#555555"];

/// Writes the picture into the directory of the build, and returns where it is.
pub(crate) fn plot(file: &str, title: &str, (across, up): (&str, &str), curves: &[Curve]) -> PathBuf {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let (left, right) = decades(points().map(|point| point.0));
    let (bottom, top) = decades(points().map(|point| point.1));
    let x = |value: f64| MARGIN + (value.log10() - left) / (right - left) * (WIDTH - 2.0 * MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (value.log10() - bottom) / (top - bottom) * (HEIGHT - 2.0 * MARGIN);
    let mut out = String::new();
    let text = |out: &mut String, x: f64, y: f64, anchor: &str, words: &str| {
        write!(out, "<text x=\"{x:.0}\" y=\"{y:.0}\" text-anchor=\"{anchor}\">{words}</text>").expect("a text grows");
    };
    write!(out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/>").expect("a text grows");
    text(&mut out, WIDTH / 2.0, 25.0, "middle", title);
    text(&mut out, WIDTH / 2.0, HEIGHT - 20.0, "middle", across);
    text(&mut out, 10.0, MARGIN - 20.0, "start", up);
    let mut line = |x1: f64, y1: f64, x2: f64, y2: f64| {
        write!(out, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ddd\"/>").expect("a text grows");
    };
    for decade in left as i32..=right as i32 {
        line(x(10f64.powi(decade)), MARGIN, x(10f64.powi(decade)), HEIGHT - MARGIN);
    }
    for decade in bottom as i32..=top as i32 {
        line(MARGIN, y(10f64.powi(decade)), WIDTH - MARGIN, y(10f64.powi(decade)));
    }
    for decade in left as i32..=right as i32 {
        text(&mut out, x(10f64.powi(decade)), HEIGHT - MARGIN + 18.0, "middle", &format!("{}", 10f64.powi(decade)));
    }
    for decade in bottom as i32..=top as i32 {
        text(&mut out, MARGIN - 8.0, y(10f64.powi(decade)) + 4.0, "end", &format!("{}", 10f64.powi(decade)));
    }
    for (number, curve) in curves.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let places: Vec<String> =
            curve.points.iter().map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1))).collect();
        write!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>", places.join(" "))
            .expect("a text grows");
        for point in &curve.points {
            write!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(point.0), y(point.1))
                .expect("a text grows");
        }
        let height = MARGIN + 16.0 * number as f64;
        write!(out, "<g fill=\"{colour}\">").expect("a text grows");
        text(&mut out, WIDTH - MARGIN - 6.0, height, "end", &curve.name);
        out.push_str("</g>");
    }
    out.push_str("</svg>\n");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
    std::fs::write(&path, out).expect("room for a picture");
    path
}

/// The powers of ten around these values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) = values.fold((f64::INFINITY, 0f64), |(least, most), value| (least.min(value), most.max(value)));
    (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0))
}
