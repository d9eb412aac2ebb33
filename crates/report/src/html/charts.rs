//! Charts as SVG in the page: no script, and words beside each for who cannot see it.

use maud::{Markup, html};

use crate::Timeline;
use crate::text::{bits_per_second, count, duration};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 1.0;
const RIGHT: f64 = 1.0;
// Values stand on their lines and within the chart, so that letters may grow where the chart is small.
const TOP: f64 = 30.0;
const BOTTOM: f64 = 34.0;
/// More points than that are not told apart on a page: neighbours are put together by their largest.
const MAX_POINTS: usize = 480;

/// Throughput over time.
pub(super) fn throughput(timeline: &Timeline) -> Markup {
    let seconds = timeline.step_us as f64 / 1e6;
    let values: Vec<f64> = timeline.bytes.iter().map(|&bytes| bytes as f64 * 8.0 / seconds).collect();
    area("Throughput", &values, timeline, ceiling, bits_per_second, |_| String::new())
}

/// Packets over time.
pub(super) fn packets(timeline: &Timeline) -> Markup {
    let seconds = timeline.step_us as f64 / 1e6;
    let values: Vec<f64> = timeline.packets.iter().map(|&packets| packets as f64 / seconds).collect();
    area("Packets per second", &values, timeline, even_ceiling, whole, |_| String::new())
}

/// Retransmitted segments over time, where they were counted and there were any.
pub(super) fn retransmits(timeline: &Timeline) -> Option<Markup> {
    let retransmits = timeline.retransmits.as_ref()?;
    if retransmits.iter().all(|&count| count == 0) {
        return None;
    }
    let values: Vec<f64> = retransmits.iter().map(|&count| count as f64).collect();
    let all = |sum| format!(", {} in all", whole(sum));
    Some(area("TCP segments sent again", &values, timeline, even_ceiling, whole, all))
}

fn whole(value: f64) -> String {
    count(value.round() as u64)
}

/// A chart of `values`, whose axis ends at what `end` makes of the largest one; `all` says what their sum means, or
/// nothing where a mean says more.
fn area(
    title: &str,
    values: &[f64],
    timeline: &Timeline,
    end: impl Fn(f64) -> f64,
    label: impl Fn(f64) -> String,
    all: impl Fn(f64) -> String,
) -> Markup {
    let most = values.iter().copied().fold(0.0, f64::max);
    let top = end(most);
    let sum = values.iter().sum::<f64>();
    let together = match all(sum) {
        none if none.is_empty() => format!(", on average {}", label(sum / values.len().max(1) as f64)),
        all => all,
    };
    let points = thinned(values);
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let x = |index: usize| LEFT + width * index as f64 / points.len().max(1) as f64;
    let y = |value: f64| TOP + height * (1.0 - value / top);
    let span = values.len() as u64 * timeline.step_us;
    let description = format!("{title} in steps of {}: at most {}{together}", duration(timeline.step_us), label(most));
    html! {
        figure {
            figcaption { (description) }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(description) {
                @for part in 0..=4 {
                    @let value = top * f64::from(part) / 4.0;
                    line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(tenths(y(value))) y2=(tenths(y(value))) {}
                }
                @for part in 0..=4u32 {
                    @let place = LEFT + width * f64::from(part) / 4.0;
                    @let anchor = match part { 0 => "start", 4 => "end", _ => "middle" };
                    @let class = if part % 2 == 1 { "between" } else { "" };
                    text class=(class) x=(tenths(place)) y=(HEIGHT - 10.0) text-anchor=(anchor) {
                        @if part == 0 { "0" } @else { "+" (duration(span * u64::from(part) / 4)) }
                    }
                }
                path class="area" d=(steps(&points, x, y, Some(y(0.0)))) {}
                path class="curve" d=(steps(&points, x, y, None)) {}
                // Nothing is at the lowest line, and it has the times below it.
                @for part in (1..=4).filter(|part| part % 2 == 0) {
                    @let value = top * f64::from(part) / 4.0;
                    text class="value" x=(LEFT + 4.0) y=(tenths(y(value) - 5.0)) { (label(value)) }
                }
            }
        }
    }
}

/// A line of steps: a value holds for the whole of its step. With `base` it is closed down to there.
fn steps(points: &[f64], x: impl Fn(usize) -> f64, y: impl Fn(f64) -> f64, base: Option<f64>) -> String {
    use std::fmt::Write as _;
    let mut path = String::new();
    for (index, &value) in points.iter().enumerate() {
        let letter = if index == 0 { 'M' } else { 'V' };
        // Writing to a String cannot fail.
        let _ = match letter {
            'M' => write!(path, "M{} {}", tenths(x(0)), tenths(y(value))),
            _ => write!(path, "V{}", tenths(y(value))),
        };
        let _ = write!(path, "H{}", tenths(x(index + 1)));
    }
    if let (Some(base), false) = (base, points.is_empty()) {
        let _ = write!(path, "V{}H{}Z", tenths(base), tenths(x(0)));
    }
    path
}

fn thinned(values: &[f64]) -> Vec<f64> {
    let together = values.len().div_ceil(MAX_POINTS).max(1);
    values.chunks(together).map(|part| part.iter().copied().fold(0.0, f64::max)).collect()
}

/// A round number that is not less.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let magnitude = 10f64.powf(value.log10().floor());
    let rounds = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    rounds.into_iter().map(|round| round * magnitude).find(|&round| round >= value).unwrap_or(value)
}

/// The same for what is counted: half of it is a whole number too.
fn even_ceiling(value: f64) -> f64 {
    (ceiling(value) / 2.0).ceil() * 2.0
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The score as part of a ring.
pub(super) fn ring(score: f64) -> Markup {
    const RADIUS: f64 = 44.0;
    let around = 2.0 * std::f64::consts::PI * RADIUS;
    let (class, word) = match score {
        _ if score >= 85.0 => ("arc good", "good"),
        _ if score >= 60.0 => ("arc fair", "fair"),
        _ => ("arc poor", "poor"),
    };
    html! {
        svg viewBox="0 0 120 120" role="img" aria-label=(format!("Health score {score} of 100: {word}")) {
            circle class="track" cx="60" cy="60" r=(RADIUS) {}
            circle class=(class) cx="60" cy="60" r=(RADIUS) transform="rotate(-90 60 60)"
                stroke-dasharray=(format!("{:.1} {around:.1}", around * score / 100.0)) {}
            text class="big" x="60" y="68" text-anchor="middle" { (score.round()) }
            text x="60" y="86" text-anchor="middle" { (word) }
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are exact")]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_that_is_not_less() {
        assert_eq!(ceiling(0.0), 1.0);
        assert_eq!(ceiling(1.0), 1.0);
        assert_eq!(ceiling(130.0), 160.0);
        assert_eq!(ceiling(99_000.0), 100_000.0);
        assert_eq!([0.0, 1.0, 3.0, 130.0].map(even_ceiling), [2.0, 2.0, 4.0, 160.0]);
    }

    #[test]
    fn thinning_keeps_what_stands_out() {
        let mut values = vec![1.0; 10_000];
        values[7_777] = 50.0;
        let thin = thinned(&values);
        assert!(thin.len() <= MAX_POINTS);
        assert!(thin.contains(&50.0));
    }
}
