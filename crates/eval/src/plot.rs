//! A small line-plot rasteriser for PNG pictures and GIF panels: curves, axes, labels, nothing else.

use std::path::Path;

use worldbench_core::Frame;

use crate::{EvalError, font};

/// RGB, 8 bits a channel.
pub type Colour = [u8; 3];

/// Curve colours in order of use; chosen to differ in lightness too.
pub const COLOURS: [Colour; 6] =
    [[31, 90, 170], [214, 96, 20], [44, 140, 80], [150, 50, 140], [120, 120, 40], [60, 60, 60]];
const INK: Colour = [40, 40, 40];
const GRID: Colour = [225, 225, 225];

/// One curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// (x, y) in data units; a point that is not finite breaks the curve.
    pub points: Vec<(f64, f64)>,
}

impl Series {
    /// A curve over x = 0, 1, 2, ...
    #[must_use]
    pub fn over_index(name: &str, values: &[f64]) -> Self {
        Self { name: name.into(), points: values.iter().enumerate().map(|(i, &y)| (i as f64, y)).collect() }
    }
}

/// A line plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// Above the plot.
    pub title: String,
    /// Below the x axis.
    pub x_label: String,
    /// Curves, in order of [`COLOURS`].
    pub series: Vec<Series>,
    /// Horizontal dashed lines at these y, e.g. a threshold.
    pub levels: Vec<f64>,
    /// Ends of the x axis; from the data when absent.
    pub x_range: Option<(f64, f64)>,
    /// Ends of the y axis; from the data, zero included, when absent.
    pub y_range: Option<(f64, f64)>,
}

impl Plot {
    /// Draws the plot; `width` and `height` (px) are raised to 64 when smaller.
    #[must_use]
    pub fn render(&self, width: usize, height: usize) -> Frame {
        let (width, height) = (width.max(64), height.max(64));
        let mut frame = Frame::new(width, height);
        frame.data.fill(255);
        let y_ticks = ticks(self.y_range.unwrap_or_else(|| headroom(self.extent(|p| p.1, true))));
        let x_ticks = ticks(self.x_range.unwrap_or_else(|| self.extent(|p| p.0, false)));
        let labels: Vec<String> = y_ticks.values.iter().map(|&v| number(v, y_ticks.step)).collect();
        let widest = labels.iter().map(String::len).max().unwrap_or(0);
        let area = Area {
            left: widest * font::ADVANCE + 4,
            right: width - 6,
            top: if self.title.is_empty() { 6 } else { 14 },
            bottom: height - if self.x_label.is_empty() { 14 } else { 24 },
            x: x_ticks.ends,
            y: y_ticks.ends,
        };
        text(&mut frame, area.left, 3, &self.title, INK);
        for (&value, label) in y_ticks.values.iter().zip(&labels) {
            let y = area.at(area.x.0, value).1;
            line(&mut frame, (area.left as f64, y), (area.right as f64, y), GRID);
            text(&mut frame, 2, (y as usize).saturating_sub(3), label, INK);
        }
        for &value in &x_ticks.values {
            let (x, _) = area.at(value, area.y.0);
            let label = number(value, x_ticks.step);
            let half = label.len() * font::ADVANCE / 2;
            let left = (x as usize).saturating_sub(half).min(width.saturating_sub(2 * half));
            text(&mut frame, left, area.bottom + 4, &label, INK);
        }
        text(&mut frame, area.left, height - 9, &self.x_label, INK);
        self.curves(&mut frame, &area);
        frame
    }

    fn curves(&self, frame: &mut Frame, area: &Area) {
        let corner = |x: usize, y: usize| (x as f64, y as f64);
        line(frame, corner(area.left, area.top), corner(area.left, area.bottom), INK);
        line(frame, corner(area.left, area.bottom), corner(area.right, area.bottom), INK);
        for &level in self.levels.iter().filter(|l| l.is_finite()) {
            let y = area.at(area.x.0, level).1;
            for x in (area.left..area.right).step_by(6) {
                line(frame, (x as f64, y), ((x + 3).min(area.right) as f64, y), INK);
            }
        }
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            for pair in series.points.windows(2) {
                if pair.iter().all(|p| p.0.is_finite() && p.1.is_finite()) {
                    let (p, q) = (area.at(pair[0].0, pair[0].1), area.at(pair[1].0, pair[1].1));
                    line(frame, p, q, colour);
                    line(frame, (p.0, p.1 + 1.0), (q.0, q.1 + 1.0), colour);
                }
            }
            let left = area.right.saturating_sub(series.name.chars().count() * font::ADVANCE);
            let top = area.top + 2 + i * (font::HEIGHT + 3);
            // A white ground keeps the name readable where a curve passes.
            (top - 1..=top + font::HEIGHT).for_each(|y| {
                line(frame, (left as f64 - 1.0, y as f64), (area.right as f64, y as f64), [255; 3]);
            });
            text(frame, left, top, &series.name, colour);
        }
    }

    /// Smallest and largest finite coordinate over all curves.
    fn extent(&self, coordinate: fn(&(f64, f64)) -> f64, with_zero: bool) -> (f64, f64) {
        let start = if with_zero { (0.0, 0.0) } else { (f64::INFINITY, f64::NEG_INFINITY) };
        let values = self.series.iter().flat_map(|s| &s.points).map(coordinate).filter(|v| v.is_finite());
        let (low, high) = values.fold(start, |(low, high), v| (low.min(v), high.max(v)));
        if low <= high { (low, high) } else { (0.0, 1.0) }
    }
}

/// The rectangle of the curves, in pixels, and what it shows, in data units.
struct Area {
    left: usize,
    right: usize,
    top: usize,
    bottom: usize,
    x: (f64, f64),
    y: (f64, f64),
}

impl Area {
    /// Pixel of a data point, held inside the area.
    fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let share = |v: f64, (low, high): (f64, f64)| ((v - low) / (high - low)).clamp(0.0, 1.0);
        let (left, right) = (self.left as f64, self.right as f64);
        let (top, bottom) = (self.top as f64, self.bottom as f64);
        (left + (right - left) * share(x, self.x), bottom - (bottom - top) * share(y, self.y))
    }
}

struct Ticks {
    values: Vec<f64>,
    step: f64,
    ends: (f64, f64),
}

/// Room above the highest curve, so that it does not run along the frame.
fn headroom((low, high): (f64, f64)) -> (f64, f64) {
    (low, high + 0.08 * (high - low))
}

/// Round tick values (1, 2 or 5 times a power of ten apart, about four of them).
fn ticks((low, high): (f64, f64)) -> Ticks {
    let (low, high) = if low.is_finite() && high.is_finite() { (low, high) } else { (0.0, 1.0) };
    let high = if high > low { high } else { low + 1.0 };
    let rough = (high - low) / 4.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].iter().map(|m| m * power).find(|s| *s >= rough).unwrap_or(rough);
    let first = (low / step).ceil();
    let count = ((high / step).floor() - first).clamp(0.0, 20.0) as usize;
    Ticks { values: (0..=count).map(|i| (first + i as f64) * step).collect(), step, ends: (low, high) }
}

/// A tick label with as many decimals as the step needs.
fn number(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    format!("{value:.decimals$}")
}

fn dot(frame: &mut Frame, x: usize, y: usize, colour: Colour) {
    if x < frame.width && y < frame.height {
        let at = (y * frame.width + x) * 3;
        frame.data[at..at + 3].copy_from_slice(&colour);
    }
}

fn line(frame: &mut Frame, p: (f64, f64), q: (f64, f64), colour: Colour) {
    let steps = (q.0 - p.0).abs().max((q.1 - p.1).abs()).ceil().max(1.0) as usize;
    for i in 0..=steps {
        let t = i as f64 / steps as f64;
        let (x, y) = (p.0 + (q.0 - p.0) * t, p.1 + (q.1 - p.1) * t);
        dot(frame, x.round() as usize, y.round() as usize, colour);
    }
}

/// Writes `content` with its top left corner at (x, y); what falls outside the frame is dropped.
pub fn text(frame: &mut Frame, x: usize, y: usize, content: &str, colour: Colour) {
    for (i, c) in content.chars().enumerate() {
        for (row, bits) in font::glyph(c).into_iter().enumerate() {
            for column in (0..5).filter(|column| bits >> (4 - column) & 1 == 1) {
                dot(frame, x + i * font::ADVANCE + column, y + row, colour);
            }
        }
    }
}

/// Writes a frame as PNG.
///
/// # Errors
/// When the frame's data do not fit its size or the file cannot be written.
pub fn write_png(path: &Path, frame: &Frame) -> Result<(), EvalError> {
    if frame.data.len() != frame.width * frame.height * 3 {
        let (width, height, length) = (frame.width, frame.height, frame.data.len());
        return Err(EvalError::Picture(format!("{width} x {height} RGB does not hold {length} bytes")));
    }
    let mut bytes = std::io::Cursor::new(Vec::new());
    let (width, height) = (frame.width as u32, frame.height as u32);
    image::write_buffer_with_format(
        &mut bytes,
        &frame.data,
        width,
        height,
        image::ExtendedColorType::Rgb8,
        image::ImageFormat::Png,
    )
    .map_err(|e| EvalError::Picture(e.to_string()))?;
    crate::runner::write_atomic(path, bytes.get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 100.0)).values, [0.0, 50.0, 100.0]);
        assert_eq!(ticks((0.0, 4.0)).values, [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(number(0.25, 0.05), "0.25");
        assert_eq!(ticks((f64::NAN, 1.0)).ends, (0.0, 1.0));
        assert_eq!(ticks((3.0, 3.0)).ends, (3.0, 4.0));
    }

    #[test]
    fn curves_reach_the_picture_and_odd_values_do_no_harm() {
        let plot = Plot {
            title: "error".into(),
            x_label: "step".into(),
            series: vec![
                Series::over_index("a", &[1.0, 5.0, 2.0]),
                Series::over_index("b", &[f64::NAN, f64::INFINITY, 1e300]),
            ],
            levels: vec![3.0, f64::NAN],
            ..Plot::default()
        };
        for (width, height) in [(200, 120), (1, 1)] {
            let frame = plot.render(width, height);
            assert_eq!(frame.data.len(), frame.width * frame.height * 3);
            assert!(frame.data.chunks(3).any(|p| p == COLOURS[0]));
        }
        let frame = Plot::default().render(80, 80);
        assert!(frame.data.iter().any(|&b| b != 255));
    }

    #[test]
    fn png_round_trips() {
        let frame = Plot { title: "x".into(), ..Plot::default() }.render(70, 70);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/p.png");
        write_png(&path, &frame).unwrap();
        assert_eq!(image::open(&path).unwrap().to_rgb8().into_raw(), frame.data);
        let broken = Frame { width: 9, height: 9, data: vec![0; 3] };
        assert!(write_png(&path, &broken).is_err());
    }
}
