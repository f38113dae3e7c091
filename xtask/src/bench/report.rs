//! The table and the curve that people read.

use super::figures::{Bar, Figure, Growth, median};
use std::fmt::Write;

/// One line a figure: medians with what they lie between, the ratio that counts, and whether it is enough.
pub fn table(names: &[String], figures: &[Figure]) -> String {
    let mut text = format!("| what | {} | floor | bar | |\n", names.join(" | "));
    text += &format!("| --- |{} --- | --- | --- |\n", " --- |".repeat(names.len()));
    for figure in figures {
        let cells: Vec<String> = (0..names.len())
            .map(|n| figure.measured.get(n).map_or("–".into(), |values| spread(values, figure.unit)))
            .collect();
        let floor = if figure.floor.is_empty() { "–".into() } else { spread(&figure.floor, figure.unit) };
        let (bar, verdict) = judge(figure);
        let _ = writeln!(text, "| {} | {} | {floor} | {bar} | {verdict} |", figure.what, cells.join(" | "));
    }
    text
}

fn spread(values: &[f64], unit: &str) -> String {
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
    let middle = number(median(values));
    match values.len() {
        0 => "–".into(),
        1 => format!("{middle} {unit}").trim_end().to_owned(),
        _ => format!("{middle} {unit} ({} to {})", number(low), number(high)),
    }
}

fn number(value: f64) -> String {
    match value {
        v if v >= 1000.0 => format!("{:.0}", v),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// The bar in words, and how Isle, the first one, stands to it.
fn judge(figure: &Figure) -> (String, String) {
    let medians: Vec<f64> = figure.measured.iter().map(|values| median(values)).collect();
    let (isle, peers) = (medians[0], &medians[1..]);
    let best = |better: fn(f64, f64) -> f64| peers.iter().copied().filter(|p| p.is_finite()).reduce(better);
    let mark = |is_met: bool, ratio: String| format!("{} {ratio}", if is_met { "met:" } else { "**missed**:" });
    match figure.bar {
        Bar::PartOfPeer(part) => {
            let bar = format!("1/{:.0} of the faster peer", 1.0 / part);
            match best(f64::min) {
                Some(peer) => (bar, mark(isle <= peer * part, format!("1/{:.1}", peer / isle))),
                None => (bar, "no peer here".into()),
            }
        }
        Bar::TimesPeer(times) => {
            let bar = format!("{times} times the faster peer");
            match best(f64::max) {
                Some(peer) => (bar, mark(isle >= peer * times, format!("{:.1} times", isle / peer))),
                None => (bar, "no peer here".into()),
            }
        }
        Bar::AtMost(most) => {
            let unit = figure.unit;
            (format!("{} {unit}", number(most)).trim_end().to_owned(), mark(isle <= most, number(isle)))
        }
    }
}

/// How long the n-th container took to start, by each engine, as a picture (SVG 1.1).
pub fn curve(names: &[String], growth: &Growth) -> String {
    const SIZE: (f64, f64) = (640.0, 280.0);
    const COLOURS: [&str; 3] = ["#0a7", "#07c", "#a3a"];
    let most = growth.0.iter().flatten().copied().fold(1.0, f64::max);
    let count = growth.0.iter().map(Vec::len).max().unwrap_or(1).max(2);
    // Logarithmic from 1 ms, since the engines differ by more than ten.
    let place = |n: usize, value: f64| {
        let x = 50.0 + (SIZE.0 - 60.0) * n as f64 / (count - 1) as f64;
        let y = SIZE.1 - 30.0 - (SIZE.1 - 50.0) * value.max(1.0).ln() / most.max(2.0).ln();
        format!("{x:.1},{y:.1}")
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"50\" y=\"14\">Milliseconds to start one more container on a network (logarithmic)</text>\n",
        SIZE.0, SIZE.1
    );
    for line in [1.0, 10.0, 100.0, 1000.0].into_iter().filter(|line| *line <= most) {
        let (from, to) = (place(0, line), place(count - 1, line));
        let (x, y) = from.split_once(',').unwrap_or_default();
        let _ = writeln!(svg, "<polyline points=\"{from} {to}\" stroke=\"#ddd\" fill=\"none\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{y}\" text-anchor=\"end\">{line}</text>",
            x.parse().unwrap_or(50.0) - 6.0
        );
    }
    for (n, (name, values)) in names.iter().zip(&growth.0).enumerate() {
        let points: Vec<String> = values.iter().enumerate().map(|(n, v)| place(n, *v)).collect();
        let colour = COLOURS[n % COLOURS.len()];
        let _ = writeln!(svg, "<polyline points=\"{}\" stroke=\"{colour}\" fill=\"none\"/>", points.join(" "));
        let at = 60 + 130 * n;
        let _ = writeln!(svg, "<text x=\"{at}\" y=\"{}\" fill=\"{colour}\">{name}</text>", SIZE.1 - 8.0);
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_judged_by_medians_and_the_faster_peer() {
        let figure = |bar, measured: &[&[f64]]| Figure {
            what: "it".into(),
            unit: "ms",
            bar,
            measured: measured.iter().map(|m| m.to_vec()).collect(),
            floor: Vec::new(),
        };
        let verdict = |bar, measured: &[&[f64]]| judge(&figure(bar, measured)).1;
        assert_eq!(verdict(Bar::PartOfPeer(0.1), &[&[9.0, 10.0, 90.0], &[100.0], &[200.0]]), "met: 1/10.0");
        assert_eq!(verdict(Bar::PartOfPeer(0.1), &[&[11.0], &[100.0], &[200.0]]), "**missed**: 1/9.1");
        assert_eq!(verdict(Bar::TimesPeer(2.0), &[&[300.0], &[100.0], &[200.0]]), "**missed**: 1.5 times");
        assert_eq!(verdict(Bar::AtMost(20.0), &[&[12.0]]), "met: 12.0");
        assert_eq!(verdict(Bar::PartOfPeer(0.5), &[&[1.0]]), "no peer here");
    }
}
