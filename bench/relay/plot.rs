//! Two curves over one axis, as an SVG file.

use std::path::Path;

use plotters::prelude::*;

/// What was measured at one place of the axis.
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) rate: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Rate above, latency below.
pub(crate) fn write(path: &Path, x_label: &str, points: &[Point]) {
    let root = SVGBackend::new(path, (720, 560)).into_drawing_area();
    root.fill(&WHITE).unwrap();
    let (above, below) = root.split_vertically(280);
    curves(&above, "drain, rows per second", x_label, points, &[("rows/s", &|point| point.rate, BLUE)]);
    let latencies: [Curve<'_>; 2] =
        [("p50", &|point| point.p50_ms, GREEN), ("p99", &|point| point.p99_ms, RED)];
    curves(&below, "commit to append, milliseconds", x_label, points, &latencies);
    root.present().unwrap();
}

type Curve<'a> = (&'a str, &'a dyn Fn(&Point) -> f64, RGBColor);

fn curves(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    caption: &str,
    x_label: &str,
    points: &[Point],
    curves: &[Curve<'_>],
) {
    let highest = curves.iter().flat_map(|(_, of, _)| points.iter().map(of)).fold(0.0, f64::max);
    let (first, last) = (points.first().unwrap().x, points.last().unwrap().x);
    let mut chart = ChartBuilder::on(area)
        .caption(caption, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d((first..last).log_scale(), 0.0..highest * 1.1)
        .unwrap();
    chart.configure_mesh().x_desc(x_label).draw().unwrap();
    for (name, of, color) in curves {
        let line = || points.iter().map(|point| (point.x, of(point)));
        chart.draw_series(LineSeries::new(line(), *color)).unwrap().label(*name);
        chart.draw_series(line().map(|place| Circle::new(place, 3, color.filled()))).unwrap();
        let (x, y) = line().next_back().unwrap();
        chart
            .draw_series([Text::new((*name).to_owned(), (x, y), ("sans-serif", 12).into_font().color(color))])
            .unwrap();
    }
}
